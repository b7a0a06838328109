"""Where images come from (arrays, encoded bytes, files), and what identifies them: their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.pixels import DECODING, SCHEME, Decoding, decode, opened
from tvt_ray.errors import RunError, UsageError
from tvt_ray.storage.locations import cache_folder, first_line, shown, write_atomically

# What was known of a file when it was hashed: size in bytes, modification time in nanoseconds, and the hash.
Known: TypeAlias = tuple[int, int, str]

# A file that was changed so recently may change again without another modification time: it is not remembered.
SETTLED_NS = 2_000_000_000


class ImageSource(Protocol):
    """Numbered images."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Image.Image: ...

    def fingerprint(self) -> str:
        """Changes when the images do."""
        ...

    def portable(self, indices: NDArray[np.int64]) -> ImageSource:
        """The images at `indices`, in that order, without reference to this machine's disk."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Decoded images of one size, uint8 (N, H, W, 3)."""

    array: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.array[index])

    def fingerprint(self) -> str:
        """Of the pixels themselves."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(self.array.ravel().data).hexdigest()

    def portable(self, indices: NDArray[np.int64]) -> ArrayImages:
        """Those at `indices`."""
        return ArrayImages(self.array[indices])


@dataclass(frozen=True)
class EncodedImages:
    """JPEG, PNG …: files, or bytes in memory with a name each. Headers and hashes are to be had without decoding."""

    encoded: Sequence[Path] | Sequence[bytes]
    names: Sequence[str] | None = None  # None: of files, their paths
    decoding: Decoding = DECODING

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.encoded[index], self.name(index), self.decoding)

    def opened(self, index: int) -> AbstractContextManager[Image.Image]:
        """An image whose header was read; what goes wrong in the block is a UsageError that names the image."""
        return opened(self.encoded[index], self.name(index), self.decoding)

    def name(self, index: int) -> str:
        """What messages call an image."""
        return shown(self.encoded[index]) if self.names is None else self.names[index]

    @cached_property
    def hashes(self) -> Sequence[str]:
        """Of each image's bytes, as they were when first asked. Raises UsageError for a file that is not there."""
        files = [each for each in self.encoded if isinstance(each, Path)]
        return [*file_hashes(files), *(bytes_hash(each) for each in self.encoded if isinstance(each, bytes))]

    def fingerprint(self) -> str:
        """Of contents and of how they become pixels, not of names and places: a copy elsewhere has the same."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return bytes_hash(json.dumps([SCHEME, str(self.decoding.background), *self.hashes]).encode())

    def portable(self, indices: NDArray[np.int64]) -> EncodedImages:
        """Those at `indices`, in memory."""
        chosen = [self.encoded[i] for i in indices]
        contents = [each.read_bytes() if isinstance(each, Path) else each for each in chosen]
        return EncodedImages(contents, [self.name(i) for i in indices], self.decoding)


@dataclass(frozen=True)
class DecodedImages:
    """RGB images of any size in one array."""

    pixels: NDArray[np.uint8]  # usually mapped from a file: pages are shared by processes, and read when touched
    starts: NDArray[np.int64]  # where each image begins: (n,)
    shapes: NDArray[np.int64]  # height and width of each: (n, 2)
    original: str  # fingerprint of the images that these were
    # gives an image's pixels as they were written, of those that are in the array now; None: they need no check
    mend: Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Image.Image:
        height, width = self.shapes[index]
        return Image.fromarray(self._pixels(index).reshape(height, width, 3))

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        pixels = self.pixels[self.starts[index] : self.starts[index] + 3 * self.shapes[index].prod()]
        return self.mend(index, pixels) if self.mend else pixels

    def fingerprint(self) -> str:
        """That of the images that were decoded."""
        return self.original

    def portable(self, indices: NDArray[np.int64]) -> DecodedImages:
        """Those at `indices`, in memory."""
        pixels = np.concatenate([np.empty(0, np.uint8), *(self._pixels(i).ravel() for i in indices)])
        shapes = self.shapes[indices]
        return DecodedImages(pixels, np.cumsum(3 * shapes.prod(1)) - 3 * shapes.prod(1), shapes, self.original)


IN_MEMORY = (ArrayImages, DecodedImages)  # whole, and looked at in no time


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """sha256 of each file's bytes. A file whose path, size and modification time are those of last time is not read.

    Raises UsageError that names a file which is not there or cannot be read.
    """
    if not paths:
        return []
    paths = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (Path.resolve would follow links)
    memory = cache_folder() / "hashes" / f"{bytes_hash(os.fsencode(os.path.commonpath(paths)))[:16]}.json"
    known = _recall(memory)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and hashing leave the interpreter's lock
        found = list(pool.map(lambda path: _look(path, known.get(str(path))), paths))
    settled = time.time_ns() - SETTLED_NS
    fresh = {str(path): entry for path, entry in zip(paths, found, strict=True) if entry[1] < settled}
    if any(known.get(path) != entry for path, entry in fresh.items()):
        with contextlib.suppress(RunError):  # a cache that cannot be written costs a second reading, and nothing else
            write_atomically(memory, json.dumps({**known, **fresh}).encode())
    return [digest for _, _, digest in found]


def bytes_hash(data: bytes) -> str:
    """sha256, as `file_hashes` gives it of a file that holds `data`."""
    return hashlib.sha256(data).hexdigest()


def _look(path: Path, known: Known | None) -> Known:
    try:
        stat = path.stat()
        if known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
            return known
        if not S_ISREG(stat.st_mode):  # a pipe would be waited for
            raise UsageError(f"image {shown(path)} is no file")
        with path.open("rb") as file:
            return stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UsageError(f"image {shown(path)} is listed but not there") from None
    except OSError as error:
        raise UsageError(f"image {shown(path)} cannot be read: {first_line(error)}") from None


def _recall(memory: Path) -> dict[str, Known]:
    """Nothing where there is no such file, or one that is damaged."""
    try:
        entries = json.loads(memory.read_bytes())
        return {str(path): (int(size), int(mtime), str(digest)) for path, (size, mtime, digest) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
