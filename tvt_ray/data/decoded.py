"""What a pass over images found, kept in the cache for all processes and later runs: facts, and pixels made smaller.

A photo of 12 megapixels takes a hundred milliseconds to decode, in each epoch, for a network that sees 64 pixels of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tvt_ray.data.images import IN_MEMORY, DecodedImages, EncodedImages, ImageSource
from tvt_ray.data.looking import ImageFacts, Seen, Size, look_at
from tvt_ray.data.splits import Dataset
from tvt_ray.errors import RunError
from tvt_ray.progress import Meter, say
from tvt_ray.storage.locations import cache_folder, first_line, temporary_beside, write_atomically

SCHEME = "decoded-4"  # changes with what is looked at, what is done to pixels, and how they are kept
MARGIN = 8 / 7  # times the largest size that networks see: what a centre crop of 224 pixels is usually taken from
ASPECT = 1.5  # width over height that room on the disk is reckoned with
RESERVE = 0.9  # of the free disk that may be taken
UNUSED_S = 60 * 24 * 3600.0  # seconds after which what nobody used is removed


def decode_once(data: Dataset, largest_size: int) -> Dataset:
    """The dataset with every image decoded, its shorter side at most 8/7 of `largest_size`, the pixels networks see.

    Smaller images stay as they are. What is decoded is kept in the cache by content; where there is no room, a line
    says so and images are decoded as they are asked for. Raises UsageError that names the first corrupt image.
    """
    sources: dict[int, ImageSource] = {}
    for split in data.splits.values():
        source = split.source
        if id(source) not in sources and isinstance(source, EncodedImages):
            sources[id(source)], _ = _decoded(source, range(len(source)), largest_size, "decoding images")
    train, val, test = (
        dataclasses.replace(split, source=sources.get(id(split.source), split.source)) for split in data.splits.values()
    )
    data = dataclasses.replace(data, train=train, val=val, test=test, loaded=None)
    verify_images(data)  # what there was no room for
    return data


def verify_images(data: Dataset) -> None:
    """Raises UsageError that names the first corrupt image. What was found whole is remembered until it changes."""
    for source, order in _sources(data):
        if not isinstance(source, IN_MEMORY):
            _facts(source, order, "checking images")


def image_facts(data: Dataset, largest_size: int | None = None) -> dict[str, list[ImageFacts]]:
    """Of every image of each split, decoded where that was not done already; raises UsageError for the first corrupt.

    With `largest_size` the same pass keeps the pixels that `decode_once` gives.
    """
    found = {id(source): _facts(source, order, "looking at images", largest_size) for source, order in _sources(data)}
    return {name: [found[id(split.source)][i] for i in split.indices] for name, split in data.splits.items()}


def _sources(data: Dataset) -> list[tuple[ImageSource, Sequence[int]]]:
    """Each source of images, and the order of its images in the splits, those that are in none last."""
    sources = {id(split.source): split.source for split in data.splits.values()}
    orders: dict[int, list[int]] = {key: [] for key in sources}
    for split in data.splits.values():
        orders[id(split.source)] += split.indices.tolist()
    return [(source, list(dict.fromkeys([*orders[key], *range(len(source))]))) for key, source in sources.items()]


def _facts(
    source: ImageSource, order: Sequence[int], title: str, largest_size: int | None = None
) -> Sequence[ImageFacts]:
    """Of all images of a source, as they are numbered there."""
    known, seen = _recall_facts(source), None
    if largest_size is not None and isinstance(source, EncodedImages):
        _, seen = _decoded(source, order, largest_size, title, span=known is None)
    if known is not None:
        return known
    seen = seen or {index: each.facts for index, each in _walk(source, order, title, span=True)}
    facts = [seen[index] for index in range(len(source))]
    if not isinstance(source, IN_MEMORY):
        with contextlib.suppress(RunError):  # a cache that cannot be written costs a second look, and nothing else
            write_atomically(_cache_file(source, "facts", ".json"), json.dumps(facts).encode())
    return facts


def _recall_facts(source: ImageSource) -> Sequence[ImageFacts] | None:
    """None where there are none, and for images of which one is larger now than may be read."""
    if isinstance(source, IN_MEMORY):
        return None
    try:
        entries = json.loads(_cache_file(source, "facts", ".json").read_bytes())
        facts = [ImageFacts(Size(*map(int, size)), str(mode), int(span)) for size, mode, span in entries]
    except (OSError, ValueError, TypeError):
        return None
    limit = source.decoding.max_pixels if isinstance(source, EncodedImages) else math.inf
    is_whole = len(facts) == len(source) and all(each.size.width * each.size.height <= limit for each in facts)
    return facts if is_whole else None


def _decoded(
    source: EncodedImages, order: Sequence[int], largest_size: int, title: str, span: bool = False
) -> tuple[ImageSource, dict[int, ImageFacts] | None]:
    """The source decoded, or itself where there is no room; and the facts, where a pass was made now."""
    side = round(MARGIN * largest_size)
    file = _cache_file(source, str(side), ".npz")
    found, facts = _read(file, source, side), None
    if found is not None:
        return found, None
    room = 3 * ASPECT * side**2 * len(source)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(file.parent).free
        if room > RESERVE * free:
            raise OSError(f"{room / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free")
        facts = _write(file, source, order, side, title, span)
        _forget_unused(file.parent)
    except OSError as error:
        say(f"decoded images are not kept in {file.parent} ({first_line(error)}): each epoch decodes them again")
        return source, None
    return _read(file, source, side) or source, facts


def _cache_file(source: ImageSource, what: str, suffix: str) -> Path:
    key = hashlib.sha256(f"{SCHEME} {source.fingerprint()} {what}".encode()).hexdigest()[:16]
    return cache_folder() / "decoded" / f"{key}{suffix}"


def _pixel_file(file: Path) -> Path:
    return file.with_suffix(".pixels")


@dataclass(frozen=True)
class Mender:
    """Pixels that are not what was written, as after a power failure, which leaves zeros, are decoded once more."""

    file: Path  # the index
    source: EncodedImages
    side: int
    checksums: NDArray[np.uint32]  # CRC-32 of each image's pixels: (n,)

    def __call__(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Of the image with this number. All images are decoded anew by whoever opens the file after that."""
        if zlib.crc32(pixels.data) == self.checksums[index]:
            return pixels
        with contextlib.suppress(OSError):  # who may not write there decodes this image each time
            self.file.unlink(missing_ok=True)
        (seen,) = look_at(self.source, [index], side=self.side)
        assert seen.pixels is not None
        return seen.pixels


def _read(file: Path, source: EncodedImages, side: int) -> DecodedImages | None:
    """None where it is not there, or not whole."""
    try:
        with np.load(file) as index:
            starts, shapes, checksums = index["starts"], index["shapes"], index["checksums"]
        pixels: NDArray[np.uint8] = np.memmap(_pixel_file(file), np.uint8, "r")
    except (OSError, ValueError, KeyError):
        return None
    if not len(starts) == len(shapes) == len(checksums) == len(source) or 3 * shapes.prod(1).sum() != len(pixels):
        return None
    with contextlib.suppress(OSError):
        file.touch()  # when it was last used
    return DecodedImages(pixels, starts, shapes, source.fingerprint(), Mender(file, source, side, checksums))


def _forget_unused(folder: Path) -> None:
    """Removes what nobody has used for long: copies of images that may be private, or are gone."""
    for index in folder.glob("*.npz"):
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - index.stat().st_mtime > UNUSED_S:
                index.unlink()
                _pixel_file(index).unlink()


def _write(
    file: Path, source: EncodedImages, order: Sequence[int], side: int, title: str, span: bool
) -> dict[int, ImageFacts]:
    """Pixels first, then the index, which says: complete. Two processes may write the same at a time."""
    temporary = [temporary_beside(path) for path in (_pixel_file(file), file)]
    facts, starts, shapes = {}, np.zeros(len(source), np.int64), np.zeros((len(source), 2), np.int64)
    checksums = np.zeros(len(source), np.uint32)
    try:
        with temporary[0].open("xb") as pixels:
            for index, seen in _walk(source, order, title, span, side):
                assert seen.pixels is not None
                facts[index], starts[index], shapes[index] = seen.facts, pixels.tell(), seen.pixels.shape[:2]
                written = seen.pixels.tobytes()
                checksums[index] = zlib.crc32(written)
                pixels.write(written)
            pixels.flush()
            os.fsync(pixels.fileno())
        with temporary[1].open("xb") as table:
            np.savez(table, starts=starts, shapes=shapes, checksums=checksums)
        temporary[0].replace(_pixel_file(file))
        temporary[1].replace(file)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    return facts


def _walk(
    source: ImageSource, order: Sequence[int], title: str, span: bool, side: int | None = None
) -> Iterator[tuple[int, Seen]]:
    with Meter(title, len(order), "images") as meter:
        for index, seen in zip(order, look_at(source, order, span=span, side=side), strict=True):
            yield index, seen
            meter.advance(1)
