"""Clusters that are no clusters, that do not let one in, or that break down: a line within seconds."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.cluster.conftest import SMALLER, free_port, readings, wait_for_rows, wait_until
from tests.cluster.processes import processes
from tests.conftest import REPO
from tvt_ray.cluster import connection
from tvt_ray.cluster.connection import check_address
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.storage.locations import cache_folder, write_atomically

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TOKEN = "the-clusters-own-token-of-some-length"
# Whoever starts Ray or joins it; nothing of the user's own.
OURS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def children(parent, name):
    """Processes of a program that a process has started."""
    program = f"/{name}".encode()
    return [each.pid for each in processes() if each.parent == parent and each.title.split(b"\0")[0].endswith(program)]


@pytest.fixture
def head():
    """The address of a Ray as `ray start` starts it, with a token."""
    ports = [free_port() for _ in range(3)]
    flags = ["--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats", "--block"]
    flags += [f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", *flags]
    environment, silent = {**os.environ, **OURS}, subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=silent, stderr=silent, start_new_session=True)
    wait_until(lambda: children(process.pid, "gcs_server"))
    yield f"127.0.0.1:{ports[0]}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def search(folder, *flags, patch="", **environment):
    """search.py as a process; `patch` is Python that it runs first."""
    script = f"import sys\n{patch}\nfrom tvt_ray.cli.main import main\nsys.exit(main(['search', *sys.argv[1:]]))"
    command = [sys.executable, "-c", script, "--run-dir", folder, *SMALLER, *flags]
    pipe, environment = subprocess.PIPE, {**os.environ, **environment}
    return subprocess.Popen(list(map(str, command)), cwd=REPO, env=environment, stdout=pipe, stderr=pipe, text=True)


def ends_with(process, code, timeout_s):
    """The last line of what it says, and all lines."""
    _, err = process.communicate(timeout=timeout_s)  # Ray itself writes to the standard output that a raylet is gone
    lines = err.splitlines()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "*** SIG" not in err
    return lines[-1], lines


@pytest.mark.night
def test_a_token_of_another_cluster_or_none_is_named_as_such(head, tmp_path):
    cases = [(head, {"RAY_AUTH_TOKEN": "another"}), ("auto", {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": head})]
    for number, (address, other) in enumerate(cases):
        folder = tmp_path / f"{number}"
        last, lines = ends_with(search(folder, "--ray-address", address, **{**OURS, **other}), 2, 50)
        assert lines == [last]  # Ray itself warns each second, for a minute
        assert last.startswith(f"error: the Ray cluster at '{address}' does not take this machine's token (")
        assert "RAY_AUTH_TOKEN or ~/.ray/auth_token" in last
        assert not folder.exists()


@pytest.mark.night
@pytest.mark.parametrize(("program", "told"), [("raylet", "Ray's raylet at "), ("gcs_server", "Ray's head (GCS) at ")])
def test_a_search_that_loses_its_ray_ends_with_how_to_go_on(program, told, teacher, tmp_path):
    """With a shorter patience for the head than that of Ray, which waits for a minute for one that restarts."""
    folder = tmp_path / "run"
    patch = "from tvt_ray.cluster import connection; connection.HEAD_PATIENCE_S = 3.0"
    process = search(folder, "--num-samples", "5000", "--archs-per-trial", "4", patch=patch)
    assert wait_for_rows(process, folder, 12) >= 12
    (pid,) = children(process.pid, program)
    os.kill(pid, signal.SIGKILL)
    last, _ = ends_with(process, 1, 60)
    assert told in last
    assert f"--run-dir {folder} " in last
    assert last.endswith(" --resume")
    assert len(readings(folder)) >= 12


class Page(BaseHTTPRequestHandler):
    """Some other server."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        """Nothing."""


def test_what_is_no_head_is_told_within_seconds():
    with pytest.raises(UsageError, match=r"no Ray cluster at '127.0.0.1:\d+': 127.0.0.1:\d+ does not answer"):
        check_address(f"127.0.0.1:{free_port()}")
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(UsageError, match=r"is no Ray head: what answers there is none \(\w+\); give HOST:PORT"):
            check_address(f"127.0.0.1:{server.server_port}")
        assert time.monotonic() - start < 20
        server.shutdown()
    silent = r"is no Ray head: what answers there is none \(DEADLINE_EXCEEDED\)"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UsageError, match=silent):
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_head_that_lets_one_in_is_one(cluster, monkeypatch):
    check_address(cluster)
    monkeypatch.setenv("RAY_ADDRESS", cluster)  # which Ray takes for what auto means
    check_address("auto")


@pytest.mark.parametrize("variable", ["local", "ray://head:10001"])
def test_auto_beside_a_variable_that_is_no_head_is_told_as_that(variable, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", variable)
    with pytest.raises(UsageError, match=f"no Ray cluster at 'auto': RAY_ADDRESS is '{variable}'; unset it, or give"):
        check_address("auto")


def test_auto_is_the_head_that_was_joined_last_and_told_where_it_is_gone(tmp_path, monkeypatch):
    """As after a crash: the file that says where it was is there, and it is not."""
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)  # of other tests
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UsageError, match="no Ray cluster at 'auto': Could not find any running Ray instance"):
        check_address("auto")
    (tmp_path / "ray").mkdir()
    gone = f"127.0.0.1:{free_port()}"
    (tmp_path / "ray" / "ray_current_cluster").write_text(gone)
    with pytest.raises(UsageError, match=f"no Ray cluster at 'auto': {gone} does not answer"):
        check_address("auto")


@pytest.fixture
def port(monkeypatch):
    """A port that answers until it is closed, in the place of a cluster's head."""
    monkeypatch.setattr(connection, "LOOK_INTERVAL_S", 0.1)
    monkeypatch.setattr(connection, "HEAD_PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


def test_a_head_that_is_gone_for_good_is_told_once(cluster, port):
    server, address = port
    reasons = []
    with connection.watched(address, reasons.append):
        time.sleep(1.0)
        assert reasons == []  # while it answers
        server.close()
        wait_until(lambda: reasons, 20)
        time.sleep(0.5)
    assert reasons == [f"Ray's head (GCS) at {address} is gone"]


def test_a_head_that_comes_back_in_time_is_no_loss(cluster, port, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_PATIENCE_S", 30.0)
    server, address = port
    reasons = []
    with connection.watched(address, reasons.append):
        time.sleep(0.5)
        server.close()
        time.sleep(0.5)
        with socket.create_server(("127.0.0.1", int(address.partition(":")[2]))):
            time.sleep(0.5)
    assert reasons == []


def test_a_port_that_never_answered_is_no_lifeline(cluster, port):
    """A firewall may stand between; Ray's own connection lives all the same."""
    server, address = port
    server.close()
    reasons = []
    with connection.watched(address, reasons.append):
        time.sleep(1.5)
    assert reasons == []


@pytest.mark.night
def test_a_module_that_lies_in_the_current_folder_reaches_no_worker(cluster, tmp_path):
    """`tvt` does not import from there, so neither does what Ray starts for it."""
    (tmp_path / "planted").mkdir()
    for name in ("torch", "numpy", "timm"):
        (tmp_path / "planted" / f"{name}.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\nraise SystemExit\n")
    command = [Path(sys.executable).with_name("tvt"), "search", "--run-dir", "run", *SMALLER, "--num-samples", "4"]
    command += ["--ray-address", cluster]
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path / "planted", capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert len(readings(tmp_path / "planted" / "run")) >= 4
    assert not (tmp_path / "owned").exists()


def test_rays_token_is_made_for_this_user_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    before, file = os.umask(0o002), tmp_path / ".ray" / "auth_token"
    connection.keep_token_private()
    os.umask(before)
    token = file.read_text()
    assert len(token) == 64
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]
    connection.keep_token_private()
    assert capsys.readouterr().err == ""
    file.chmod(0o644)
    connection.keep_token_private()
    assert (file.read_text(), file.stat().st_mode & 0o777) == (token, 0o600)
    assert "could be read by others" in capsys.readouterr().err


LISTENING = """
import os, sys
from tvt_ray.cluster.connection import connected
with connected("local"):
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def listening(pids):
    """Addresses, in hexadecimal, and ports on which these processes wait for connections."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(entry.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].rpartition(":")
                found.add((address, int(port, 16)))
    return found


@pytest.fixture
def own_ray(tmp_path):
    """The processes of a Ray that `tvt` starts on this machine, with a home of its own."""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"XDG_STATE_HOME": str(tmp_path / "state"), "RAY_AUTH_MODE": "token"}
    environment.pop("RAY_ADDRESS", None)
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", LISTENING], stdin=pipe, stdout=pipe, env=environment, text=True)
    assert int(process.stdout.readline()) == process.pid
    family, size = {process.pid}, 0
    while len(family) > size:
        size = len(family)
        family |= {each.pid for each in processes() if each.parent in family}
    yield family
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def test_a_cluster_of_this_machine_listens_on_loopback_alone(own_ray, tmp_path):
    found = {address for address, _ in listening(own_ray)}
    assert found
    assert found <= {"0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


NOBODY = 65534


def as_nobody(attack):
    """What a function gives that runs as another user of this machine, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            told = attack()
        except BaseException as error:  # whatever it is, this process is not pytest's
            told = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = json.loads(pipe.read())
    os.waitpid(child, 0)
    return told


def asked_without_a_token(port):
    """Status and beginning of what a port answers who asks for jobs by HTTP; 0: it does not speak that."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/api/jobs/")
        answer = connection.getresponse()
        return answer.status, answer.read(6).decode("latin-1")
    except (OSError, http.client.HTTPException):
        return 0, ""


@pytest.mark.night
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_reads_no_secrets_and_runs_no_jobs(own_ray, tmp_path, monkeypatch):
    """Though the folders above and ports on 127.0.0.1 are open to them. Ray's metrics are, which name no data."""
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    write_atomically(cache_folder() / "decoded" / "photo.pixels", b"private")
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.claim(RunConfig())  # which is signed
    for above in (tmp_path, *tmp_path.parents[:-2]):
        above.chmod(0o755)
    secrets = [tmp_path / ".ray/auth_token", cache_folder() / "decoded/photo.pixels", tmp_path / "state/tvt_ray/key"]
    assert all(secret.read_bytes() for secret in secrets)
    assert as_nobody(lambda: os.listdir(tmp_path))  # noqa: PTH208 (in a process that must do little)
    for secret in secrets:
        assert as_nobody(secret.read_text).startswith("PermissionError")
    ports = sorted({port for _, port in listening(own_ray)})
    answers = as_nobody(lambda: [asked_without_a_token(port) for port in ports])
    assert 401 in [status for status, _ in answers]  # the dashboard's
    assert {text for status, text in answers if 200 <= status < 400} <= {"# HELP"}  # metrics, for Prometheus
