"""The Ray cluster that a run is on: joining or starting it, watching it, and leaving this process as it was."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import ray

from tvt_ray.cluster.ray_patches import address_of_auto, ask_head, job_config, on_loopback, workers_environment
from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say
from tvt_ray.storage.locations import first_line, make_privately

REACH_TIMEOUT_S = 5.0  # to see whether anybody listens at an address; ray.init takes a quarter of an hour to say so
DEFAULT_PORT = 6379
TOKEN_GIVEN = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
# Ray's C++ core ends a process that has lost the head (GCS) or its own machine's raylet, after a while and without
# telling Python. So their ports are tried all the time, and who is lost is said before that.
LOOK_INTERVAL_S = 0.25
HEAD_PATIENCE_S = 50.0  # a head that restarts is waited for, as Ray does for a minute
RAYLET_PATIENCE_S = 0.25  # it does not come back, and Ray ends the process a second or two later
CONNECT_TIMEOUT_S = 2.0
KEPT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MAX_SOCKET_PATH = 107  # bytes, of Linux; Ray makes sockets below its temporary folder
_SOCKET_BELOW_TMPDIR = len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")


@contextlib.contextmanager
def connected(address: str | None, if_lost: Callable[[str], object] = lambda reason: None) -> Iterator[None]:
    """The cluster at `address` or RAY_ADDRESS, or Ray on this machine, started here; left or ended at the block's end.

    Where this process is connected already, that cluster, which is left as it is. `if_lost` is called, in a thread,
    when its head or this machine's raylet is gone for good: Ray then ends the process, without a word. Raises
    UsageError where there is no cluster, RunError where Ray cannot be started.
    """
    if ray.is_initialized():
        yield
        return
    address = resolve_address(address)
    check_address(address)
    with signals_kept():
        context = _init(address)
    try:
        _say_where(address, context.dashboard_url)
        with watched(context.address_info["gcs_address"], if_lost):
            yield
    finally:
        ray.shutdown()


def resolve_address(address: str | None) -> str:
    """As given, or as RAY_ADDRESS says, or `local`."""
    return address or os.environ.get("RAY_ADDRESS") or "local"


def check_address(address: str) -> None:
    """Raises UsageError, within seconds, for an address that Ray will not be reached at or started on."""
    if address == "local":
        _check_tmpdir()
    elif address.startswith("ray://"):
        raise UsageError(
            f"Ray Client ({address}) cannot run a search: run on the cluster (ray job submit, ray attach), "
            "or give the address of its head as HOST:6379"
        )
    elif address == "auto":
        _reach(address, *_host_and_port(_head_of_auto()))
    else:
        _reach(address, *_host_and_port(address))


def _head_of_auto() -> str:
    try:
        found = address_of_auto()
    except ConnectionError as error:
        raise UsageError(f"no Ray cluster at 'auto': {first_line(error)}") from None
    if found == "local" or found.startswith("ray://"):  # Ray takes the variable's word for it, whatever it is
        raise UsageError(f"no Ray cluster at 'auto': RAY_ADDRESS is {found!r}; unset it, or give HOST:PORT of a head")
    return found


def _reach(address: str, host: str, port: int) -> None:
    advice = "give HOST:PORT of a running head, auto, or local"
    try:
        socket.create_connection((host, port), REACH_TIMEOUT_S).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster at {address!r}: {host}:{port} does not answer ({first_line(error)}); {advice}"
        ) from None
    try:
        ask_head(f"{host}:{port}", REACH_TIMEOUT_S)
    except ray.exceptions.AuthenticationError as error:
        raise UsageError(_other_token(address, first_line(error))) from None
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise UsageError(_other_token(address, error.details())) from None
        why = f"what answers there is none ({error.code().name})"
        raise UsageError(f"{host}:{port} is no Ray head: {why}; {advice}") from None


def _other_token(address: str, said: str) -> str:
    return (
        f"the Ray cluster at {address!r} does not take this machine's token ({said}); give its token in "
        "RAY_AUTH_TOKEN or ~/.ray/auth_token, with RAY_AUTH_MODE=token"
    )


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon:
        return address, DEFAULT_PORT
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"a Ray address is HOST:PORT, auto or local; got {address!r}")
    return host.strip("[]"), int(port)


def _check_tmpdir() -> None:
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    longest = MAX_SOCKET_PATH - _SOCKET_BELOW_TMPDIR
    path = os.path.join(folder, "ray") if folder != "/tmp" else "/tmp/ray"  # noqa: PTH118 (bytes of a text are counted)
    if len(path.encode()) > longest:
        raise UsageError(
            f"Ray's temporary folder {path} is {len(path.encode())} bytes long, and its sockets need it to be at most "
            f"{longest}: set RAY_TMPDIR to a shorter one"
        )


def keep_token_private() -> None:
    """Makes the token of this user's Ray clusters, which Ray would write by the umask, so that it alone can read it.

    Whoever has it runs code as this user. One that others can read is closed to them. Raises RunError.
    """
    try:
        file = Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # a container's unknown user: Ray says what it lacks
        return
    try:
        if not file.exists():
            make_privately(file, secrets.token_hex(32).encode())
        elif file.stat().st_mode & 0o077:
            file.chmod(0o600)
            say(f"ray: {file} could be read by others, who could run code in your clusters; now it is yours alone")
    except OSError as error:
        raise RunError(f"Ray's token {file} cannot be kept: {error.strerror}") from None


def _init(address: str) -> Any:
    local = address == "local"
    if local and os.environ.get("RAY_AUTH_MODE", "token").lower() == "token" and not os.environ.keys() & TOKEN_GIVEN:
        keep_token_private()
    try:
        with contextlib.ExitStack() as opened:
            where = opened.enter_context(on_loopback()) if local else {}
            opened.enter_context(workers_environment())
            return ray.init(
                address=address,
                job_config=job_config(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **where,
            )
    except ray.exceptions.AuthenticationError as error:
        raise UsageError(_other_token(address, first_line(error))) from None
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"no Ray cluster at {address!r}: {first_line(error)}") from None
    except (ray.exceptions.RayError, RuntimeError, OSError, TimeoutError) as error:
        raise RunError(f"Ray could not be started or joined at {address!r}: {first_line(error)}") from None


def _say_where(address: str, dashboard: str | None) -> None:
    resources = ray.cluster_resources()
    where = "on this machine" if address == "local" else f"at {address}"
    gpus = f", {resources['GPU']:g} GPUs" if "GPU" in resources else ""
    dashboard = f"; dashboard http://{dashboard}" if dashboard else ""
    say(f"ray: {resources.get('CPU', 0):g} CPUs{gpus} {where}{dashboard}")


@contextlib.contextmanager
def watched(head: str, if_lost: Callable[[str], object]) -> Iterator[None]:
    """Calls `if_lost` with a reason, once, in a thread, when the head (HOST:PORT) or the raylet is gone for good."""
    ended = threading.Event()
    ports = {"head (GCS)": (_host_and_port(head), HEAD_PATIENCE_S), "raylet": (_own_raylet(), RAYLET_PATIENCE_S)}
    thread = threading.Thread(target=_watch, args=[ports, ended, if_lost], name="lifeline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(
    ports: dict[str, tuple[tuple[str, int], float]], ended: threading.Event, if_lost: Callable[[str], object]
) -> None:
    # One that never answers here (a firewall between) is no lifeline.
    seen = {name: time.monotonic() for name, (port, _) in ports.items() if _answers(port)}
    while not ended.wait(LOOK_INTERVAL_S):
        for name in seen:
            port, patience = ports[name]
            if _answers(port, silence=name == "raylet"):
                seen[name] = time.monotonic()
            elif time.monotonic() - seen[name] > patience and not ended.is_set():
                if_lost(f"Ray's {name} at {port[0]}:{port[1]} is gone")
                return


def _answers(port: tuple[str, int], silence: bool = False) -> bool:
    """Whether somebody listens. `silence`: what a time-out means; on the own machine, that a process is busy."""
    try:
        socket.create_connection(port, CONNECT_TIMEOUT_S).close()
    except TimeoutError:
        return silence
    except OSError:
        return False
    return True


def _own_raylet() -> tuple[str, int]:
    own = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == own)
    return node["NodeManagerAddress"], int(node["NodeManagerPort"])


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Ray and Tune take signals for themselves, and leave it so; afterwards all is as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in KEPT_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet(loggers: Mapping[str, int], environment: Mapping[str, str]) -> Iterator[None]:
    """Sets loggers' levels, and variables that Ray reads, for a block. One that the user has set is left alone."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    added = [name for name in environment if name not in os.environ]
    for name, level in loggers.items():
        logging.getLogger(name).setLevel(level)
    os.environ.update({name: environment[name] for name in added})
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in added:
            os.environ.pop(name, None)
