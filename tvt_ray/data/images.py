"""Where images come from: arrays, encoded bytes or files. All give RGB PIL images, and can travel to other machines."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tvt_ray.data.hashes import bytes_hash, combined_hash, file_hashes
from tvt_ray.data.pixels import SCHEME, WHITE, Colour, to_rgb
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line, shown

PIL_PIXELS = 89_478_485  # what PIL takes for a usual image
MAX_PIXELS = 2 * PIL_PIXELS  # beyond, PIL refuses an image


@dataclass(frozen=True)
class Decoding:
    """How an encoded image becomes pixels."""

    background: Colour = WHITE  # behind what is transparent
    max_pixels: int = MAX_PIXELS  # width times height of the largest image that is read


DECODING = Decoding()


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


@contextlib.contextmanager
def opened(data: bytes | Path, name: str, decoding: Decoding = DECODING) -> Iterator[Image.Image]:
    """An image whose header was read, before its pixels are.

    Raises UsageError that names the image where it is missing, larger than `decoding` allows, or, in the block, broken.
    """
    try:
        with _open(data) as image:
            _check_size(image, name, decoding)
            yield image
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"image {name} is listed but not there") from None
    except UnidentifiedImageError:  # whose own words name an object in memory
        raise UsageError(f"corrupt image {name}: it is of no kind that PIL reads") from None
    except MemoryError:
        raise UsageError(f"image {name} does not fit into memory; data.max_pixels bounds what is read") from None
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error … for broken files
        raise UsageError(f"corrupt image {name}: {first_line(error)}") from None


def decode(data: bytes | Path, name: str, decoding: Decoding = DECODING) -> Image.Image:
    """An RGB image, by the rules of `to_rgb`. One that PIL takes for huge is made smaller by a whole factor.

    Raises UsageError that names the image when it cannot be decoded whole, or is larger than `decoding` allows.
    """
    with opened(data, name, decoding) as image:
        image.draft(image.mode, _bounds(image))  # JPEG decodes at a smaller scale as well
        return bounded(to_rgb(image, decoding.background))


def bounded(image: Image.Image) -> Image.Image:
    """The mean of so many pixels by so many that PIL's operations take the image. Most are as they were."""
    factor = math.ceil(math.sqrt(image.width * image.height / PIL_PIXELS))
    return image.reduce(factor) if factor > 1 else image


def _bounds(image: Image.Image) -> tuple[int, int]:
    """What `bounded` makes of it, or a little more."""
    factor = max(1.0, math.sqrt(image.width * image.height / PIL_PIXELS))
    return math.ceil(image.width / factor), math.ceil(image.height / factor)


def _open(data: bytes | Path) -> Image.Image:
    def stream() -> io.BytesIO | Path:
        return io.BytesIO(data) if isinstance(data, bytes) else data

    try:
        return Image.open(stream())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # data.max_pixels says what is too large
        with _any_size():
            return Image.open(stream())


_LIFTED = threading.Lock()


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """PIL's limit belongs to the whole process: one thread at a time lifts it, and puts it back."""
    with _LIFTED:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(image: Image.Image, name: str, decoding: Decoding) -> None:
    if image.width * image.height > decoding.max_pixels:
        raise UsageError(
            f"image {name} has {image.width:,} x {image.height:,} pixels, more than data.max_pixels allows "
            f"({decoding.max_pixels:,}); where it is wanted: --set data.max_pixels={image.width * image.height}"
        )


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
        return combined_hash([SCHEME, str(self.decoding.background), *self.hashes])

    def portable(self, indices: NDArray[np.int64]) -> EncodedImages:
        """Those at `indices`, in memory."""
        chosen = [self.encoded[i] for i in indices]
        contents = [each.read_bytes() if isinstance(each, Path) else each for each in chosen]
        return EncodedImages(contents, [self.name(i) for i in indices], self.decoding)
