"""One driver per folder: a lock of the operating system's, or a lease."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from tvt_ray.errors import RunError, UsageError
from tvt_ray.storage.locations import Location, RemotePath

LOCK_FILE = ".lock"
LEASE_S = 90.0  # a lease that was not renewed for as long belongs to a driver that is gone
RENEW_S = 15.0
SETTLE_S = 1.0  # between writing a lease and looking whose it is: of two drivers that start together one is kept out


class FolderLock:
    """`with FolderLock(folder):` keeps every other driver out of a folder. Raises UsageError when one is in it.

    On a local or mounted filesystem the operating system's lock, which ends with the process however it ends. Elsewhere
    a lease: a file that is renewed while its owner lives and is taken over once it has not been for LEASE_S, by the
    store's clock, since drivers' clocks differ. An owner that was suspended for as long may have lost it, and `check`
    says so.
    """

    def __init__(self, folder: Location) -> None:
        self.folder, self.file = folder, folder / LOCK_FILE
        self.owner = f"process {os.getpid()} on {socket.gethostname()}"
        self._token, self._renewed = uuid.uuid4().hex, 0.0
        self._taken_by: str | None = None
        self._handle: Any = None
        self._stop = threading.Event()

    def __enter__(self) -> FolderLock:
        if isinstance(self.file, RemotePath):
            self._take_lease(self.file)
        else:
            self._take_lock(self.file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if isinstance(self.file, RemotePath):
            self._renewer.join()
            with contextlib.suppress(RunError):  # it runs out by itself
                if not self._lost_to(self.file):
                    self.file.unlink()
        elif self._handle is not None:
            self._handle.close()

    def check(self) -> None:
        """Raises RunError where another driver has taken the folder over; asks only when a renewal is overdue."""
        if isinstance(self.file, RemotePath) and time.time() - self._renewed > LEASE_S / 2 and not self._taken_by:
            self._taken_by = self._lost_to(self.file)
        if self._taken_by:
            raise RunError(
                f"{self.folder} was taken over by another tvt process ({self._taken_by}), since this one had not "
                f"renewed its lease for {LEASE_S:.0f} s"
            )

    def _lost_to(self, file: RemotePath) -> str | None:
        """Who holds the lease, where that is somebody else."""
        lease = _read_lease(file)
        return None if lease.get("token") == self._token else str(lease.get("owner", "which has ended"))

    def _refuse(self, owner: str) -> UsageError:
        return UsageError(
            f"{self.folder} is in use by another tvt process ({owner}); wait for it, or choose another --run-dir"
        )

    def _take_lock(self, file: Path) -> None:
        handle: Any = None
        try:
            handle = _opened(file)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read().strip()
            handle.close()
            raise self._refuse(owner) from None
        except OSError as error:
            raise UsageError(f"{file} cannot be locked: {error.strerror}") from None
        handle.seek(0)
        handle.truncate()
        handle.write(self.owner)
        handle.flush()
        self._handle = handle

    def _take_lease(self, file: RemotePath) -> None:
        if file.exists() and self._age(file) < LEASE_S:
            owner = _read_lease(file).get("owner", "an unknown driver")
            raise self._refuse(f"{owner}; if it was killed, its lease ends within {LEASE_S:.0f} s")
        self._renew(file)
        time.sleep(SETTLE_S)
        if other := self._lost_to(file):  # also one of an earlier version, which wrote no token
            raise self._refuse(other)
        self._renewer = threading.Thread(target=self._keep_renewing, args=[file], daemon=True)
        self._renewer.start()

    def _age(self, file: RemotePath) -> float:
        """Seconds since the lease was renewed: what the store calls now is when it takes a file that is written now."""
        renewed, mark = file.modified(), file.parent / f"{LOCK_FILE}.{self._token}"
        mark.write_bytes(b"")
        now = mark.modified()
        mark.unlink()
        if renewed is None or now is None:
            said = _read_lease(file).get("renewed")
            return time.time() - said if isinstance(said, int | float) else LEASE_S
        return now - renewed

    def _renew(self, file: RemotePath) -> None:
        now = time.time()
        file.write_bytes(json.dumps({"owner": self.owner, "token": self._token, "renewed": now}).encode())
        self._renewed = now

    def _keep_renewing(self, file: RemotePath) -> None:
        while not self._stop.wait(RENEW_S):
            with contextlib.suppress(RunError):  # the next renewal may pass
                self._taken_by = self._lost_to(file)
                if self._taken_by:
                    return
                self._renew(file)


def _opened(file: Path) -> Any:
    """To read and write, made where it is not there. Raises OSError for a link, through which another file would be
    emptied, and for what is no file.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return os.fdopen(descriptor, "r+")


def _read_lease(file: RemotePath) -> dict[str, Any]:
    """What a lease says; nothing where it is not there, empty or damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        lease = json.loads(file.read_bytes())
        return lease if isinstance(lease, dict) else {}
    return {}
