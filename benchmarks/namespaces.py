"""Machines of Linux namespaces: each with a network, processes, a name, /tmp and a home of its own, reached by ssh."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.runner import REPO
from tvt_ray.errors import RunError, UsageError

NETWORK, BRIDGE = "10.77.0", "tvtlab"
NEEDED = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
}
HOME = "/tmp/home"  # of root, on a machine's own /tmp
READY_WITHIN_S = 30.0


def check_host() -> None:
    """Raises UsageError with what is missing here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise UsageError("machines of namespaces are made by root on Linux")
    missing = [f"{name} ({package})" for name, package in NEEDED.items() if not shutil.which(name, path=_path())]
    if missing:
        raise UsageError(f"machines of namespaces need {', '.join(missing)}")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Lab:
    """A bridge with machines on it, and a folder that all of them see, the rest of the disk beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.machines = folder, dict[int, Machine]()
        self.key = folder / "key"

    def machine(self, number: int) -> Machine:
        """The one of that number, started unless it runs; its address ends with it."""
        if number not in self.machines:
            self.machines[number] = Machine(self, number)
            self.machines[number].start()
        return self.machines[number]

    def lose(self, number: int) -> None:
        """As when its power is cut."""
        self.machines.pop(number).kill()


@contextlib.contextmanager
def laboratory() -> Iterator[Lab]:
    """An empty one. All that it made is taken away at the end. Raises UsageError where it cannot be made here."""
    check_host()
    lab = Lab(Path(tempfile.mkdtemp(prefix="tvt-lab-", dir="/var/tmp")))  # of /tmp each machine has one of its own
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(lab.key)])
    _run(["ip", "link", "delete", BRIDGE], check=False)  # of a call that was killed
    _run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    try:
        _run(["ip", "address", "add", f"{NETWORK}.254/24", "dev", BRIDGE])
        _run(["ip", "link", "set", BRIDGE, "up"])
        yield lab
    finally:
        for number in list(lab.machines):
            lab.lose(number)
        _run(["ip", "link", "delete", BRIDGE])
        shutil.rmtree(lab.folder, ignore_errors=True)


class Machine:
    """A host as Debian sets one up: its own name resolves to 127.0.1.1."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab, self.number = lab, number
        self.name, self.address = f"{BRIDGE}{number}", f"{NETWORK}.{number}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Up to where it takes a login. Raises RunError where it does not."""
        self._make_network()
        script = self._write("start", self._start_script())
        apart = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with self._file("log").open("ab") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "unshare", *apart, "bash", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + READY_WITHIN_S
        while self.run("true", check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RunError(f"{self.name} takes no login: {self._file('log').read_text()[-500:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """All of its processes, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._clear()

    def run(
        self, command: str, check: bool = True, timeout: float = 600, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command by ssh, as somebody who has logged in. Raises RunError where it fails."""
        done = subprocess.run(
            self.ssh(command, variables), capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise RunError(f"{self.name}: {command[:200]} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
        return done

    def ssh(self, command: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs one there, from the root of this checkout."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=2"]
        words = [word for option in options for word in ("-o", option)]
        given = "".join(f"export {name}={shlex.quote(value)}; " for name, value in (variables or {}).items())
        there = f"cd {shlex.quote(str(REPO))} && {given}{command}"
        return ["ssh", "-i", str(self.lab.key), *words, f"root@{self.address}", there]

    def _clear(self) -> None:
        """The network of the machine that was, or of one that a call left which was killed.

        The link first: a namespace goes, and with it its end of the link, when the last of its processes has.
        """
        _run(["ip", "link", "delete", self.name], check=False)
        _run(["ip", "netns", "delete", self.name], check=False)

    def _make_network(self) -> None:
        self._clear()
        inside = ["ip", "-n", self.name]
        _run(["ip", "netns", "add", self.name])
        card = f"02:00:0a:4d:00:{self.number:02x}"  # the same when it starts again, so that neighbours know it
        peer = ["peer", "name", "eth0", "address", card, "netns", self.name]
        _run(["ip", "link", "add", self.name, "type", "veth", *peer])
        _run(["ip", "link", "set", self.name, "master", BRIDGE, "up"])
        _run([*inside, "address", "add", f"{self.address}/24", "dev", "eth0"])
        for link in ("lo", "eth0"):
            _run([*inside, "link", "set", link, "up"])
        _run([*inside, "route", "add", "default", "via", f"{NETWORK}.254"])

    def _start_script(self) -> str:
        """What its first process does, before it waits for logins."""
        hosts = self._write("hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        names = self._write("resolv.conf", "")  # nobody resolves names here, and nobody waits for an answer
        users = Path("/etc/passwd").read_text().splitlines()
        root = f"root:x:0:0:root:{HOME}:/bin/bash"
        passwd = self._write(
            "passwd", "\n".join([root, *(line for line in users if not line.startswith("root:"))]) + "\n"
        )
        host_key = self._file("host_key")
        if not host_key.exists():
            _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)])
        config = self._write("sshd_config", self._sshd_config(host_key))
        return f"""set -e
hostname {self.name}
mount -t tmpfs tmpfs /tmp
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount --bind {hosts} /etc/hosts
mount --bind {names} /etc/resolv.conf
mount --bind {passwd} /etc/passwd
mkdir -p {HOME} /run/sshd
echo 'PATH="$HOME/.local/bin:$PATH"' > {HOME}/.profile
exec {shutil.which("sshd", path=_path())} -D -e -f {config}
"""

    def _sshd_config(self, host_key: Path) -> str:
        lines = {
            "ListenAddress": self.address,
            "HostKey": host_key,
            "AuthorizedKeysFile": f"{self.lab.key}.pub",
            "PidFile": "none",
            "StrictModes": "no",  # the folder may be anywhere
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "UsePAM": "no",
            "SetEnv": f"PATH={_path()}",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _file(self, name: str) -> Path:
        return self.lab.folder / f"{self.name}.{name}"

    def _write(self, name: str, text: str) -> Path:
        self._file(name).write_text(text)
        return self._file(name)


def _run(command: Sequence[str], check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": _path()}, check=False)
    if check and done.returncode:
        raise RunError(f"{shlex.join(command)}: {done.stderr.strip()}")
