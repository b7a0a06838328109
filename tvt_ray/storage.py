"""Files that appear whole or not at all, here or on any filesystem that pyarrow knows; and locks on folders."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import json
import os
import posixpath
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.fs as pafs

from tvt_ray.errors import RunError, UsageError

LOCK_FILE = ".lock"
LEASE_S = 90.0  # a lease that was not renewed for as long belongs to a driver that is gone
RENEW_S = 15.0
SETTLE_S = 1.0  # between writing a lease and looking whose it is: of two drivers that start together one is kept out

_PUT_IS_ATOMIC = ("s3", "gcs", "abfs")  # object stores: an object appears when its upload is complete


@dataclass(frozen=True)
class RemotePath:
    """The part of pathlib.Path that a run folder needs, on a pyarrow filesystem. Raises RunError where that fails."""

    filesystem: pafs.FileSystem
    path: str  # within the filesystem
    uri: str  # as the user gave it, options behind a question mark included

    def __truediv__(self, name: str) -> RemotePath:
        uri, question, options = self.uri.partition("?")
        uri = posixpath.join(uri, name) + question + options
        return RemotePath(self.filesystem, posixpath.join(self.path, name), uri)

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> RemotePath:
        uri, question, options = self.uri.partition("?")
        return RemotePath(self.filesystem, posixpath.dirname(self.path), posixpath.dirname(uri) + question + options)

    def with_suffix(self, suffix: str) -> RemotePath:
        return self.parent / (self.stem + suffix)

    def exists(self) -> bool:
        return bool(self._type() != pafs.FileType.NotFound)

    def is_file(self) -> bool:
        return bool(self._type() == pafs.FileType.File)

    def _type(self) -> Any:
        with self._failing("read"):
            return self.filesystem.get_file_info(self.path).type

    def read_bytes(self) -> bytes:
        with self._failing("read"), self.filesystem.open_input_file(self.path) as file:
            return bytes(file.read())

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def glob(self, pattern: str) -> list[RemotePath]:
        """Files of this folder, not of those in it; none where there is no folder."""
        with self._failing("read"):
            infos = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        names = [info.base_name for info in infos if info.type == pafs.FileType.File]
        return [self / name for name in names if fnmatch.fnmatch(name, pattern)]

    def unlink(self) -> None:
        with self._failing("removed"):
            self.filesystem.delete_file(self.path)

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """With its parents; there is no other way on an object store."""
        with self._failing("made"):
            self.filesystem.create_dir(self.path, recursive=True)

    def write_bytes(self, data: bytes) -> None:
        """Whole or not at all."""
        atomic = self.filesystem.type_name in _PUT_IS_ATOMIC
        target = self.path if atomic else posixpath.join(self.parent.path, f".{self.name}.{uuid.uuid4().hex}.tmp")
        with self._failing("written"):
            if not atomic:
                self.filesystem.create_dir(self.parent.path, recursive=True)
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(data)
            if not atomic:
                self.filesystem.move(target, self.path)

    @contextlib.contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{self.uri} cannot be {verb}: {_first_line(error)}") from None


Location: TypeAlias = Path | RemotePath


def as_location(text: str | Path | RemotePath) -> Location:
    """A local path, or the URI of a filesystem that pyarrow knows (s3://bucket/run, gs://…, abfs://…, hdfs://…, file:///…).

    Raises UsageError for a URI that it does not.
    """
    if not isinstance(text, str) or "://" not in text:
        return Path(text) if isinstance(text, str) else text
    try:
        filesystem, path = pafs.FileSystem.from_uri(text)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{text}: {_first_line(error)}; s3://, gs://, abfs://, hdfs:// and file:/// are read"
        ) from None
    return (
        Path(path) if isinstance(filesystem, pafs.LocalFileSystem) else RemotePath(filesystem, path, text.rstrip("/"))
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def write_atomically(path: Location, data: bytes) -> None:
    """A crash leaves the old file or the new one; folders are made. Raises RunError when it cannot be written."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunError(f"{path} cannot be written: {error.strerror}") from None


def cache_folder() -> Path:
    """What can be made again: $XDG_CACHE_HOME/tvt_ray, by default ~/.cache/tvt_ray."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvt_ray"


class FolderLock:
    """`with FolderLock(folder):` keeps every other driver out of a folder. Raises UsageError when one is in it.

    On a local or mounted filesystem the operating system's lock, which ends with the process however it ends. Elsewhere
    a lease: a file that is renewed while its owner lives and is taken over once it has not been for LEASE_S. An owner
    that was suspended for as long may have lost it, and `check` says so.
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
                f"{self.folder} was taken over by another search ({self._taken_by}), since this one had not renewed "
                f"its lease for {LEASE_S:.0f} s"
            )

    def _lost_to(self, file: RemotePath) -> str | None:
        """Who holds the lease, where that is somebody else."""
        lease = json.loads(file.read_text()) if file.exists() else {"owner": "which has ended", "token": None}
        return None if lease.get("token") == self._token else str(lease["owner"])

    def _refuse(self, owner: str) -> UsageError:
        return UsageError(
            f"{self.folder} is in use by another search ({owner}); wait for it, or choose another --run-dir"
        )

    def _take_lock(self, file: Path) -> None:
        handle: Any = None
        try:
            handle = file.open("a+")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read().strip()
            handle.close()
            raise self._refuse(owner) from None
        except OSError as error:
            raise UsageError(f"{file} cannot be locked: {error.strerror}") from None
        handle.truncate(0)
        handle.write(self.owner)
        handle.flush()
        self._handle = handle

    def _take_lease(self, file: RemotePath) -> None:
        if file.exists():
            lease = json.loads(file.read_text())
            if time.time() - lease["renewed"] < LEASE_S:
                raise self._refuse(f"{lease['owner']}; if it was killed, its lease ends within {LEASE_S:.0f} s")
        self._renew(file)
        time.sleep(SETTLE_S)
        if other := self._lost_to(file):  # also one of an earlier version, which wrote no token
            raise self._refuse(other)
        self._renewer = threading.Thread(target=self._keep_renewing, args=[file], daemon=True)
        self._renewer.start()

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
