"""Images decoded once: made smaller, and kept as pixels in one file that every process maps.

A photo of 12 megapixels takes a hundred milliseconds to decode, in each epoch, for a network that sees 64 pixels of it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.images import EncodedSource, ImageSource
from tvt_ray.data.pixels import to_rgb
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.verify import PixelBudget, in_order, verify_images
from tvt_ray.progress import Meter, say
from tvt_ray.storage.locations import cache_folder, first_line

SCHEME = "decoded-1"  # changes with what is done to pixels below
MARGIN = 8 / 7  # times the largest size that networks see: what a centre crop of 224 pixels is usually taken from
ASPECT = 1.5  # width over height that room on the disk is reckoned with
RESERVE = 0.9  # of the free disk that may be taken


@dataclass(frozen=True)
class DecodedImages:
    """RGB images of any size, end to end in one array."""

    pixels: NDArray[np.uint8]  # usually mapped from a file: pages are shared by processes, and read when touched
    starts: NDArray[np.int64]  # where each image begins, and where the last one ends: (n + 1,)
    shapes: NDArray[np.int64]  # height and width of each: (n, 2)
    original: str  # fingerprint of the images that these were

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Image.Image:
        height, width = self.shapes[index]
        return Image.fromarray(self.pixels[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3))

    def fingerprint(self) -> str:
        """That of the images that were decoded."""
        return self.original

    def portable(self, indices: NDArray[np.int64]) -> DecodedImages:
        """Those at `indices`, in memory."""
        parts = [self.pixels[self.starts[i] : self.starts[i + 1]] for i in indices]
        pixels = np.concatenate([np.empty(0, np.uint8), *parts])
        return DecodedImages(pixels, _starts(self.shapes[indices]), self.shapes[indices], self.original)


def _starts(shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(3 * shapes.prod(1))])


def decode_once(data: Dataset, largest_size: int) -> Dataset:
    """The dataset with every image decoded, its shorter side at most 8/7 of `largest_size`, the pixels networks see.

    Smaller images stay as they are. What is decoded is kept in the cache by content, for all processes and later runs;
    where there is no room, a line says so and images are decoded as they are asked for. Raises UsageError that names
    the first corrupt image.
    """
    side, sources = round(MARGIN * largest_size), dict[int, ImageSource]()
    for split in data.splits.values():
        if id(split.source) not in sources and isinstance(split.source, EncodedSource):
            sources[id(split.source)] = _decoded(split.source, side)
    train, val, test = (_with_source(split, sources) for split in data.splits.values())
    data = dataclasses.replace(data, train=train, val=val, test=test, parts=None)
    if not all(isinstance(split.source, DecodedImages) for split in data.splits.values()):
        verify_images(data)  # what there was no room for
    return data


def _with_source(split: Split, sources: dict[int, ImageSource]) -> Split:
    return dataclasses.replace(split, source=sources.get(id(split.source), split.source))


def _decoded(source: EncodedSource, side: int) -> ImageSource:
    original = source.fingerprint()
    key = hashlib.sha256(f"{SCHEME} {original} {side}".encode()).hexdigest()[:16]
    file = cache_folder() / "decoded" / f"{key}.npz"
    found = _read(file, original, len(source))
    if found is not None:
        return found
    room = 3 * ASPECT * side**2 * len(source)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(file.parent).free
        if room > RESERVE * free:
            raise OSError(f"{room / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free")
        _write(file, source, side)
    except OSError as error:
        say(f"decoded images are not kept in {file.parent} ({first_line(error)}): each epoch decodes them again")
        return source
    return _read(file, original, len(source)) or source


def _pixel_file(file: Path) -> Path:
    return file.with_suffix(".pixels")


def _read(file: Path, original: str, count: int) -> DecodedImages | None:
    """None where it is not there, or not whole."""
    try:
        with np.load(file) as index:
            shapes: NDArray[np.int64] = index["shapes"]
        pixels: NDArray[np.uint8] = np.memmap(_pixel_file(file), np.uint8, "r")
    except (OSError, ValueError, KeyError):
        return None
    starts = _starts(shapes)
    if len(shapes) != count or starts[-1] != len(pixels):
        return None
    return DecodedImages(pixels, starts, shapes, original)


def _write(file: Path, source: EncodedSource, side: int) -> None:
    """Pixels first, then the index, which says: complete. Two processes may write the same at a time."""
    shapes, own = [], f".{uuid.uuid4().hex}.tmp"
    temporary = [path.with_name(path.name + own) for path in (_pixel_file(file), file)]
    try:
        with temporary[0].open("wb") as pixels, Meter("decoding images", len(source), "images") as meter:
            decode = functools.partial(_small, PixelBudget(), source, side)
            for image in in_order(decode, range(len(source))):
                shapes.append(image.shape[:2])
                pixels.write(image.tobytes())
                meter.advance(1)
        with temporary[1].open("wb") as index:
            np.savez(index, shapes=np.array(shapes, np.int64).reshape(-1, 2))
        temporary[0].replace(_pixel_file(file))
        temporary[1].replace(file)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def _small(budget: PixelBudget, source: EncodedSource, side: int, index: int) -> NDArray[np.uint8]:
    with source.opened(index) as image, budget.taking(image.width * image.height):
        image.draft(image.mode, (side, side))  # JPEG decodes at 1/2, 1/4 or 1/8
        return np.asarray(shrunk(to_rgb(image, source.decoding.background), side))


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side `side` pixels, low-pass filtered; as it is where that is no less."""
    shorter = min(image.size)
    if shorter <= side:
        return image
    size = [max(side, round(side * length / shorter)) for length in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=3.0)
