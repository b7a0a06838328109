"""Where images come from: memory, encoded bytes or files. All give RGB PIL images, and can travel to other machines."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.errors import UsageError


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


def decode(data: bytes | Path, name: str) -> Image.Image:
    """Raises UsageError that names the image when it cannot be decoded whole."""
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UsageError(f"image {name} is listed but not there") from None
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error … for broken files
        raise UsageError(f"corrupt image {name}: {error}") from None


@dataclass(frozen=True)
class ArrayImages:
    """Decoded images of one size, uint8 (N, H, W, 3)."""

    array: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.array[index])

    def fingerprint(self) -> str:
        """Of the pixels or bytes themselves."""
        return hashlib.sha256(np.ascontiguousarray(self.array).tobytes()).hexdigest()

    def portable(self, indices: NDArray[np.int64]) -> ArrayImages:
        """Those at `indices`; files are read."""
        return ArrayImages(self.array[indices])


@dataclass(frozen=True)
class EncodedImages:
    """JPEG, PNG … bytes, with a name each for messages."""

    encoded: Sequence[bytes]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.encoded[index], self.names[index])

    def fingerprint(self) -> str:
        """Of the pixels or bytes themselves."""
        return _digest(self.encoded)

    def portable(self, indices: NDArray[np.int64]) -> EncodedImages:
        """Those at `indices`; files are read."""
        return EncodedImages([self.encoded[i] for i in indices], [self.names[i] for i in indices])


@dataclass(frozen=True)
class FileImages:
    """Image files."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.paths[index], str(self.paths[index]))

    def fingerprint(self) -> str:
        """Reads no image: path, size and modification time stand for the content."""
        stats = ((path, path.stat()) for path in self.paths if path.exists())
        return _digest(f"{path}:{stat.st_size}:{stat.st_mtime_ns}".encode() for path, stat in stats)

    def portable(self, indices: NDArray[np.int64]) -> EncodedImages:
        """Those at `indices`; files are read."""
        chosen = [self.paths[i] for i in indices]
        return EncodedImages([path.read_bytes() for path in chosen], [str(path) for path in chosen])


def _digest(parts: Iterable[bytes]) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.hexdigest()
