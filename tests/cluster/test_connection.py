"""Clusters that are no clusters, that do not let one in, or that break down: a line within seconds."""

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

from tests.cluster.conftest import SMALLER, readings, wait_for_rows, wait_until
from tests.conftest import REPO
from tvt_ray.cluster.connection import check_address
from tvt_ray.errors import UsageError

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TOKEN = "the-clusters-own-token-of-some-length"
# Whoever starts Ray or joins it; nothing of the user's own.
OURS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Head:
    """Ray as `ray start` starts it, with a token; its processes by name."""

    def __init__(self):
        ports = [free_port() for _ in range(3)]
        self.address = f"127.0.0.1:{ports[0]}"
        flags = ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--block"]
        flags += [f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", *flags]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **OURS},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self.pids("raylet"))

    def pids(self, name):
        """Of the head's own children."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                program = (entry / "cmdline").read_bytes().split(b"\0")[0]
            except (OSError, ValueError, IndexError):
                continue
            if parent == self.process.pid and program.endswith(f"/{name}".encode()):
                found.append(int(entry.name))
        return found

    def kill(self, name):
        (pid,) = self.pids(name)
        os.kill(pid, signal.SIGKILL)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def head():
    started = Head()
    yield started
    started.close()


def search(folder, address, *flags, patch="", **environment):
    """search.py as a process; `patch` is Python that it runs first."""
    script = f"import sys\n{patch}\nfrom tvt_ray.cli.main import main\nsys.exit(main(['search', *sys.argv[1:]]))"
    command = [sys.executable, "-c", script, "--run-dir", folder, *SMALLER, "--ray-address", address, *flags]
    pipe = subprocess.PIPE
    environment = {**os.environ, **OURS, **environment}
    return subprocess.Popen(list(map(str, command)), cwd=REPO, env=environment, stdout=pipe, stderr=pipe, text=True)


def ends_with(process, code, timeout_s):
    """The last line of what it says, and all lines."""
    _, err = process.communicate(timeout=timeout_s)  # Ray itself writes to the standard output that a raylet is gone
    lines = err.splitlines()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "*** SIG" not in err
    return lines[-1], lines


def test_a_token_of_another_cluster_or_none_is_named_as_such_and_a_lost_raylet_ends_the_search(head, teacher, tmp_path):
    start = time.monotonic()
    for number, other in enumerate(({"RAY_AUTH_TOKEN": "another"}, {"RAY_AUTH_MODE": "disabled"})):
        last, lines = ends_with(search(tmp_path / f"{number}", head.address, **other), 2, 60)
        assert lines == [last]
        assert last.startswith(f"error: the Ray cluster at '{head.address}' does not take this machine's token (")
        assert "RAY_AUTH_TOKEN or ~/.ray/auth_token" in last
        assert not (tmp_path / f"{number}").exists()
    assert time.monotonic() - start < 50  # Ray itself asks for a minute, each time
    folder = tmp_path / "run"
    process = search(folder, head.address, "--num-samples", "5000", "--archs-per-trial", "4")
    assert wait_for_rows(process, folder, 12) >= 12
    head.kill("raylet")
    last, _ = ends_with(process, 1, 60)
    assert "Ray's raylet at " in last
    assert f"--run-dir {folder} --resume" in last
    assert len(readings(folder)) >= 12


def test_a_lost_head_ends_the_search_with_how_to_go_on(head, teacher, tmp_path):
    """With a shorter patience than that of Ray, which waits for a minute for a head that restarts."""
    folder = tmp_path / "run"
    patch = "from tvt_ray.cluster import lifeline; lifeline.HEAD_PATIENCE_S = 3.0"
    process = search(folder, head.address, "--num-samples", "5000", "--archs-per-trial", "4", patch=patch)
    assert wait_for_rows(process, folder, 12) >= 12
    head.kill("gcs_server")
    last, _ = ends_with(process, 1, 60)
    assert "Ray's head (GCS) at " in last
    assert f"--run-dir {folder} --resume" in last


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


def test_a_head_that_lets_one_in_is_one(cluster):
    check_address(cluster)
