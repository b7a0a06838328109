"""What the images of a dataset are like: sizes, modes, and those in which there is nothing to see."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from tvt_ray.data.duplicates import name_of
from tvt_ray.data.images import EncodedSource
from tvt_ray.data.pixels import to_rgb
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.verify import PixelBudget, look_at_all, remember_verified

NUM_LEVELS = 16  # of 255: images whose values are no farther apart are told, as are 12 bits in files of 16
DRAFT_SIZE = 256  # pixels: photographs are looked at at this size or a little above
SMALLEST, LARGEST, STEP = 32, 224, 32  # image sizes to recommend, in pixels


class Size(NamedTuple):
    """In pixels, upright."""

    width: int
    height: int


class ImageFacts(NamedTuple):
    """Of one image."""

    size: Size
    mode: str  # PIL's, before it became RGB
    span: int  # largest minus least value of a channel after it did; 0: all pixels are alike


@dataclass(frozen=True)
class Told:
    """How many images are so, and which is one of them."""

    num_images: int
    example: str | None


@dataclass(frozen=True)
class Sizes:
    """By number of pixels."""

    smallest: Size
    median: Size
    largest: Size


@dataclass(frozen=True)
class Survey:
    """Of all images of all splits."""

    sizes: Sizes
    modes: Mapping[str, int]  # images by PIL's mode, the most frequent first
    single_value: Told  # all pixels alike
    few_levels: Told  # more than one value, but at most num_levels of 255 apart
    recommended_image_size: int  # pixels
    num_levels: int = NUM_LEVELS


def survey(data: Dataset) -> Survey:
    """Decodes every image, so that a broken one is found. Raises UsageError that names it."""
    splits = data.splits
    found = look_at_all(list(splits.values()), functools.partial(_look, PixelBudget()), "looking at images")
    remember_verified(data)
    by_split = dict(zip(splits, found, strict=True))
    facts = [each for part in found for each in part]
    sizes = sorted((each.size for each in facts), key=lambda size: (size.width * size.height, size))
    return Survey(
        Sizes(sizes[0], sizes[len(sizes) // 2], sizes[-1]),
        dict(Counter(each.mode for each in facts).most_common()),
        _told(data, by_split, lambda each: each.span == 0),
        _told(data, by_split, lambda each: 0 < each.span <= NUM_LEVELS),
        recommended_image_size(sizes),
    )


def recommended_image_size(sizes: Sequence[Size]) -> int:
    """The largest multiple of 32, from 32 to 224, to which half of the images need not be enlarged.

    The centre square is what networks see, so the shorter side counts. Larger than 224 costs more than it brings.
    """
    median = float(np.median([min(size) for size in sizes]))
    return int(np.clip(median // STEP * STEP, SMALLEST, LARGEST))


def _look(budget: PixelBudget, split: Split, index: int) -> ImageFacts:
    if not isinstance(split.source, EncodedSource):
        image = split[index][0]
        return ImageFacts(Size(*image.size), image.mode, _span(image))
    with split.source.opened(int(split.indices[index])) as image, budget.taking(image.width * image.height):
        size, mode = Size(*image.size), image.mode
        image.draft(mode, (DRAFT_SIZE, DRAFT_SIZE))
        rgb = to_rgb(image, split.source.decoding.background)
        turned = rgb.size != image.size  # by its EXIF data
        return ImageFacts(Size(*reversed(size)) if turned else size, mode, _span(rgb))


def _span(image: Image.Image) -> int:
    return max(high - low for low, high in image.getextrema())  # type: ignore[misc, union-attr]


def _told(data: Dataset, facts: Mapping[str, Sequence[ImageFacts]], is_so: Callable[[ImageFacts], bool]) -> Told:
    found = [(name, place) for name, each in facts.items() for place, fact in enumerate(each) if is_so(fact)]
    return Told(len(found), name_of(data, *found[0]) if found else None)
