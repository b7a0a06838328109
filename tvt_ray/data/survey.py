"""What the images of a dataset are like: sizes, modes, and those in which there is nothing to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvt_ray.data.decoded import image_facts
from tvt_ray.data.duplicates import name_of
from tvt_ray.data.image_size import header_facts, image_size, median_side
from tvt_ray.data.looking import ImageFacts, Size
from tvt_ray.data.splits import Dataset

NUM_LEVELS = 16  # of 255: images whose values are no farther apart are told, as are 12 bits in files of 16


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
    recommended_image_size: int  # pixels, as `tvt fit` takes here
    image_size_with_gpu: int  # what the images themselves allow
    num_levels: int = NUM_LEVELS


def survey(data: Dataset, has_gpu: bool, largest_size: int | None = None) -> Survey:
    """Decodes every image that was not looked at before, so that a broken one is found: UsageError names it.

    With `largest_size` the pixels that networks see are kept for a run that follows, as `decode_once` does.
    """
    by_split = image_facts(data, largest_size)
    facts = [each for part in by_split.values() for each in part]
    sizes = sorted((each.size for each in facts), key=lambda size: (size.width * size.height, size))
    side = median_side(header_facts(data))
    return Survey(
        Sizes(sizes[0], sizes[len(sizes) // 2], sizes[-1]),
        dict(Counter(each.mode for each in facts).most_common()),
        _told(data, by_split, lambda each: each.span == 0),
        _told(data, by_split, lambda each: each.span is not None and 0 < each.span <= NUM_LEVELS),
        image_size(side, has_gpu),
        image_size(side, has_gpu=True),
    )


def _told(data: Dataset, facts: Mapping[str, Sequence[ImageFacts]], is_so: Callable[[ImageFacts], bool]) -> Told:
    found = [(name, place) for name, each in facts.items() for place, fact in enumerate(each) if is_so(fact)]
    return Told(len(found), name_of(data, *found[0]) if found else None)
