"""Files that appear whole or not at all, here or on any filesystem that pyarrow knows."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import posixpath
import re
import tempfile
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import AfterValidator

from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say

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
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def parent(self) -> RemotePath:
        """The folder that it is in."""
        uri, question, options = self.uri.partition("?")
        return RemotePath(self.filesystem, posixpath.dirname(self.path), posixpath.dirname(uri) + question + options)

    def with_suffix(self, suffix: str) -> RemotePath:
        """With another ending, as in `.png`."""
        return self.parent / (posixpath.splitext(self.name)[0] + suffix)

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return bool(self._type() != pafs.FileType.NotFound)

    def is_file(self) -> bool:
        """Whether there is a file."""
        return bool(self._type() == pafs.FileType.File)

    def _type(self) -> Any:
        with self._failing("read"):
            return self.filesystem.get_file_info(self.path).type

    def modified(self) -> float | None:
        """When the file was written, in seconds by the store's own clock; None where the store does not say."""
        with self._failing("read"):
            nanoseconds = self.filesystem.get_file_info(self.path).mtime_ns
        return None if nanoseconds is None else nanoseconds / 1e9

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError where there is no such file."""
        with self._failing("read"), self.filesystem.open_input_file(self.path) as file:
            return bytes(file.read())

    def read_text(self) -> str:
        """As UTF-8. Raises FileNotFoundError, and UnicodeDecodeError."""
        return self.read_bytes().decode()

    def glob(self, pattern: str) -> list[RemotePath]:
        """Files of this folder, not of those in it; none where there is no folder."""
        with self._failing("read"):
            infos = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        names = [info.base_name for info in infos if info.type == pafs.FileType.File]
        return [self / name for name in names if fnmatch.fnmatch(name, pattern)]

    def files(self) -> list[RemotePath]:
        """Files of this folder and of those in it, by name, from one listing; none where there is no folder."""
        with self._failing("read"):
            found = pafs.FileSelector(self.path, allow_not_found=True, recursive=True)
            infos = self.filesystem.get_file_info(found)
        paths = sorted(info.path for info in infos if info.type == pafs.FileType.File)
        return [self / posixpath.relpath(path, self.path) for path in paths]

    def iterdir(self) -> list[RemotePath]:
        """Files and folders in this folder; none where there is no folder."""
        with self._failing("read"):
            infos = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        return [self / info.base_name for info in infos]

    def unlink(self) -> None:
        """Removes the file."""
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
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{self.uri} cannot be {verb}: {first_line(error)}") from None


Location: TypeAlias = Path | RemotePath
T = TypeVar("T")


def as_given(path: str | Path) -> Path:
    """Raises ValueError for an empty text: an unset variable of a shell script, and not the current folder."""
    if path == "":
        raise ValueError("a path is empty; the current folder is .")
    return Path(path)


def absolute(path: str | Path) -> Path:
    """The same place whatever the current folder is later, `~` expanded; links stay links.

    Raises ValueError for an empty text, and for a name that is not UTF-8, which no config file could hold.
    """
    path = as_given(path)
    if not str(path).isascii() and any(unicodedata.category(char) == "Cs" for char in str(path)):
        raise ValueError(f"paths are UTF-8; got {shown(path)}")
    with contextlib.suppress(RuntimeError):  # nobody of that name, or nobody with a home: it is a name like others
        path = path.expanduser()
    return Path(os.path.abspath(path))  # noqa: PTH100 (Path.resolve would follow links)


AbsolutePath = Annotated[Path, AfterValidator(absolute)]  # of settings


def within_folder(folder: Path, name: str | Path) -> bool:
    """Whether a name that is relative to a folder leads to a place in it, by its text alone."""
    base = os.path.normpath(folder)
    return Path(os.path.normpath(Path(base, name))).is_relative_to(base)


def shown(name: object) -> str:
    r"""A name as any terminal, JSON and page take it: what is no UTF-8 as in caf\xe9, a line's end as \n."""
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(ascii(char)[1:-1] if unicodedata.category(char) in _UNSEEN else char for char in text)


_UNSEEN = ("Cc", "Zl", "Zp")  # control characters and ends of lines and paragraphs


_PASSWORD = re.compile(r"(?<=[a-z0-9])://[^/?#]*:[^/?#]*@", re.IGNORECASE)


def as_location(text: str | Path | RemotePath) -> Location:
    """A local path, made absolute, or the URI of a filesystem that pyarrow knows (s3://bucket/run, gs://…, file:///…).

    Raises UsageError for a URI that it does not.
    """
    if isinstance(text, RemotePath):
        return text
    if isinstance(text, Path) or "://" not in text:
        try:
            return absolute(text)
        except ValueError as error:
            raise UsageError(str(error)) from None
    check_no_password(text)
    try:
        filesystem, path = pafs.FileSystem.from_uri(text)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{text}: {first_line(error)}; s3://, gs://, abfs://, hdfs:// and file:/// are read") from None
    return (
        Path(path) if isinstance(filesystem, pafs.LocalFileSystem) else RemotePath(filesystem, path, text.rstrip("/"))
    )


def check_no_password(text: str) -> None:
    """Raises UsageError for an address that has a key or a password in it, without telling that."""
    if _PASSWORD.search(text):
        raise UsageError(
            f"{_PASSWORD.sub('://', text)} was given with a key or a password, which logs and files would hold: give "
            "it by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS …)"
        )


def first_line(error: BaseException) -> str:
    """What an error says, cut to its first line; its type's name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def write_atomically(path: Location, data: bytes) -> None:
    """A crash leaves the old file or the new one; folders are made. Raises RunError when it cannot be written."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
    else:
        _write(path, data, lambda temporary: temporary.replace(path))


def write_new(path: Path, data: bytes) -> bool:
    """As `write_atomically`, but where there is such a file already it stays, and False says so.

    Of two processes that write one name at a time one alone does.
    """
    return _write(path, data, lambda temporary: _take_free(path, temporary))


def _take_free(path: Path, temporary: Path) -> bool:
    """Gives a file its name unless that is taken, and says whether it was free; the temporary name is gone.

    On filesystems without hard links (exFAT, many network shares) another may take it in the same instant.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        temporary.unlink()
        return False
    except OSError:
        if path.exists():
            temporary.unlink()
            return False
        temporary.replace(path)
        return True
    temporary.unlink()
    return True


def _write(path: Path, data: bytes, take: Callable[[Path], T]) -> T:
    """`take` gives what is written its name: what that returns. Raises RunError."""
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        taken = take(temporary)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunError(f"{path} cannot be written: {error.strerror}") from None
    return taken


def make_privately(path: Path, data: bytes) -> None:
    """A file that this user alone can read, unless it is there: of two who make it at a time both then read one.

    Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = temporary_beside(path)
    new.touch(mode=0o600, exist_ok=False)
    new.write_bytes(data)
    _take_free(path, new)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody can foresee; opened with `x`, it is nobody's link either."""
    return path.with_name(f".{path.name[:_LONGEST]}.{uuid.uuid4().hex}.tmp")


_LONGEST = 100  # characters of a name, so that the longer one is still a name of at most 255 bytes in most scripts


def _sync_folder(folder: Path) -> None:
    """So that a new name survives a power failure; some filesystems have no such thing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_entries(folder: Location) -> None:
    """Raises UsageError where a folder that may be a stranger's holds what leads out of it: links, pipes, devices.

    Links to what is inside may stay. What the folder itself is reached by is the user's choice.
    """
    if not isinstance(folder, Path) or not folder.is_dir():
        return
    inside = folder.resolve()
    for place, folders, files in os.walk(inside):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                if not path.resolve().is_relative_to(inside):
                    raise UsageError(
                        f"{folder} holds {shown(path.relative_to(inside))}, a link to {shown(path.readlink())} "
                        "outside of it: put there what it leads to"
                    )
            elif not (path.is_file() or path.is_dir()):
                raise UsageError(f"{folder} holds {shown(path.relative_to(inside))}, which is no file and no folder")


def check_writable(path: Path) -> None:
    """Raises UsageError where a file could not be written there later, after hours of work."""
    what = "it is a folder" if path.is_dir() else what_is_closed(path.parent)
    if what:
        raise UsageError(f"{path} cannot be written: {what}")


def what_is_closed(folder: Path) -> str | None:
    """Why nothing can be written to a folder, which may be made yet; None: it can."""
    there = next(place for place in (folder, *folder.parents) if place.exists() or place == place.parent)
    is_open = there.is_dir() and os.access(there, os.W_OK)
    return None if is_open else f"{there} is no folder that can be written to"


def cache_folder() -> Path:
    """What can be made again: $XDG_CACHE_HOME/tvt_ray, by default ~/.cache/tvt_ray; without a home, in /tmp."""
    try:
        place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a container's unknown user
        place = Path(tempfile.gettempdir()) / ".cache"
    folder = Path(place) / "tvt_ray"
    with contextlib.suppress(OSError):  # who cannot make it is told by who writes there
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:  # decoded images are in it, which may be private
            folder.chmod(0o700)
    return folder


def keep_if_possible(write: Callable[[], object], what: str) -> None:
    """For what can be made again: where it cannot be written, one line says so and the work goes on."""
    try:
        write()
    except (RunError, UsageError, OSError) as error:
        say(f"{what} is not kept: {first_line(error)}")
