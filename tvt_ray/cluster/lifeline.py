"""Watches what a driver cannot live without: the cluster's head (GCS) and its own machine's raylet.

Ray's C++ core ends a process that has lost either, after a while and without telling Python. So their ports are tried
every other second, and who is lost is said before that.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import ray

LOOK_INTERVAL_S = 2.0
HEAD_PATIENCE_S = 50.0  # a head that restarts is waited for, as Ray does for a minute
RAYLET_PATIENCE_S = 5.0
CONNECT_TIMEOUT_S = 2.0


@contextlib.contextmanager
def watched(head: str, if_lost: Callable[[str], object]) -> Iterator[None]:
    """Calls `if_lost` with a reason, once, in a thread, when one of the two has not answered for its patience.

    `head`: HOST:PORT.
    """
    ended = threading.Event()
    ports = {"head (GCS)": (_split(head), HEAD_PATIENCE_S), "raylet": (_own_raylet(), RAYLET_PATIENCE_S)}
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
            if _answers(port):
                seen[name] = time.monotonic()
            elif time.monotonic() - seen[name] > patience and not ended.is_set():
                if_lost(f"Ray's {name} at {port[0]}:{port[1]} is gone")
                return


def _answers(port: tuple[str, int]) -> bool:
    try:
        socket.create_connection(port, CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _own_raylet() -> tuple[str, int]:
    own = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == own)
    return node["NodeManagerAddress"], int(node["NodeManagerPort"])
