"""What the images of a dataset are like: how large, what is there twice or empty, and how large networks see them."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from tvt_ray.data.decoded import image_facts
from tvt_ray.data.images import EncodedImages, bytes_hash
from tvt_ray.data.layout import counted
from tvt_ray.data.looking import ImageFacts, Size, look_at
from tvt_ray.data.splits import CARVED, Dataset, Split, spread

IMAGE_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # pixels; larger ones cost more than they bring
LARGEST_WITHOUT_GPU = 64
NUM_LOOKED_AT = 500  # images whose headers are read
NUM_LEVELS = 16  # of 255: images whose values are no farther apart are told, as are 12 bits in files of 16


@dataclass(frozen=True)
class Repeats:
    """Images that are there more than once."""

    num_images: int  # different ones
    example: tuple[str, ...]  # two copies of one, as messages call them


@dataclass(frozen=True)
class Duplicates:
    """An image may be of several of these kinds."""

    within_class: Repeats  # in one class of one split
    between_classes: Repeats
    between_splits: Repeats
    alike: Repeats = Repeats(0, ())  # not the same file, but of one group: they look alike, or are said to be of one
    alike_between_splits: Repeats = Repeats(0, ())  # images that validate or test, of a group that is learned from


class _Copy(NamedTuple):
    split: str
    label: int
    position: int  # in the split


_Pair: TypeAlias = tuple[_Copy, _Copy]


def find_duplicates(data: Dataset) -> Duplicates:
    """By the hash of each image's content: files that differ in a byte are different images."""
    copies: dict[str, list[_Copy]] = defaultdict(list)
    for name, split in data.splits.items():
        for position, (digest, label) in enumerate(zip(content_hashes(split), split.labels.tolist(), strict=True)):
            copies[digest].append(_Copy(name, label, position))
    groups, held = [group for group in copies.values() if len(group) > 1], _by_group(data)

    def repeats(find: Callable[[Sequence[_Copy]], _Pair | None]) -> Repeats:
        pairs = [pair for pair in map(find, groups) if pair is not None]
        example = [name_of(data, copy.split, copy.position) for copy in pairs[0]] if pairs else []
        return Repeats(len(pairs), tuple(example))

    return Duplicates(
        within_class=repeats(_alike),
        between_classes=repeats(functools.partial(_unlike, key=lambda copy: copy.label)),
        between_splits=repeats(functools.partial(_unlike, key=lambda copy: copy.split)),
        alike=_alike_images(data, held),
        alike_between_splits=_leaked(data, held),
    )


_Held: TypeAlias = Mapping[int, list[tuple[str, _Copy]]]


def _alike_images(data: Dataset, held: _Held) -> Repeats:
    """Images that are of one group with others that are not the same file."""
    some = [copies for copies in held.values() if len({digest for digest, _ in copies}) > 1]
    example = [name_of(data, copy.split, copy.position) for _, copy in some[0][:2]] if some else []
    return Repeats(sum(map(len, some)), tuple(example))


def _leaked(data: Dataset, held: _Held) -> Repeats:
    """Images that validate or test and are of one group with one of a split before theirs, of another content."""
    order, pairs = list(data.splits), list[_Pair]()
    for copies in held.values():
        for digest, copy in copies:
            before = order[: order.index(copy.split)]
            known = [other for its, other in copies if other.split in before and its != digest]
            if known and not any(its == digest and other.split in before for its, other in copies):
                pairs.append((copy, known[0]))
    example = [name_of(data, copy.split, copy.position) for copy in pairs[0]] if pairs else []
    return Repeats(len(pairs), tuple(example))


def _by_group(data: Dataset) -> _Held:
    """(content, image) of each group with more than one image; none where groups are not known."""
    found: dict[int, list[tuple[str, _Copy]]] = defaultdict(list)
    for name, split in data.splits.items():
        if split.groups is None:
            return {}
        rows = zip(split.groups.tolist(), content_hashes(split), split.labels.tolist(), strict=True)
        for position, (group, digest, label) in enumerate(rows):
            found[group].append((digest, _Copy(name, label, position)))
    return {group: copies for group, copies in found.items() if len(copies) > 1}


def duplicate_notes(data: Dataset) -> list[str]:
    """What makes a dataset's accuracies mean less than they seem to; of encoded images alone."""
    if not all(isinstance(split.source, EncodedImages) for split in data.splits.values()):
        return []
    found = find_duplicates(data)
    carved = any(origin.startswith(CARVED) for origin in data.origins.values())
    alike = found.alike if carved else Repeats(0, ())
    return tell(dataclasses.replace(found, within_class=Repeats(0, ()), alike=alike))


def tell(found: Duplicates) -> list[str]:
    """A sentence for each kind that there is."""
    kinds = (
        (found.within_class, "twice in one class", "it counts double"),
        (found.between_classes, "in more than one class", "at most one of the labels is right"),
        (found.between_splits, "in more than one split", "accuracy there counts what was seen in training"),
        (
            found.alike_between_splits,
            "of validation or test nearly as in training",
            "accuracy there counts what was nearly seen in training",
        ),
        (found.alike, "like another, or said to be of one group", "a split that is carved keeps them on one side"),
    )
    return [
        f"{counted(repeats.num_images, 'image')} {where}, such as {' and '.join(repeats.example)}: {why}"
        for repeats, where, why in kinds
        if repeats.num_images
    ]


def name_of(data: Dataset, split_name: str, position: int) -> str:
    """What messages call an image of a split: its place in the dataset's folder, or its number."""
    split = data.split(split_name)
    if not isinstance(split.source, EncodedImages):
        return f"{split_name} image {position}"
    return split.source.name(int(split.indices[position])).removeprefix(f"{data.name.partition(':')[2]}/")


def content_hashes(split: Split) -> list[str]:
    """Of each image in the split's order: of its file's bytes, or of its pixels where it has no file."""
    if isinstance(split.source, EncodedImages):
        return [split.source.hashes[i] for i in split.indices]
    return [bytes_hash(split[i][0].tobytes()) for i in range(len(split))]


def _alike(group: Sequence[_Copy]) -> _Pair | None:
    """Two copies in one class of one split."""
    first: dict[tuple[str, int], _Copy] = {}
    for copy in group:
        other = first.setdefault((copy.split, copy.label), copy)
        if other is not copy:
            return other, copy
    return None


def _unlike(group: Sequence[_Copy], key: Callable[[_Copy], object]) -> _Pair | None:
    """Two copies that differ in `key`."""
    other = next((copy for copy in group if key(copy) != key(group[0])), None)
    return None if other is None else (group[0], other)


def image_size(side: int, has_gpu: bool) -> int:
    """The largest of IMAGE_SIZES that images of this shorter side need not be enlarged to; 64 at most without a GPU."""
    largest = min(side, IMAGE_SIZES[-1] if has_gpu else LARGEST_WITHOUT_GPU)
    return max((size for size in IMAGE_SIZES if size <= largest), default=IMAGE_SIZES[0])


def header_facts(data: Dataset) -> list[ImageFacts]:
    """Of training images, evenly spread, whichever of them validate."""
    places = data.train.indices
    if data.origins.get("val", "").startswith(CARVED):
        places = np.sort(np.concatenate([places, data.val.indices]))
    chosen = places[spread(len(places), NUM_LOOKED_AT)]
    return [seen.facts for seen in look_at(data.train.source, chosen.tolist())]


def median_side(facts: list[ImageFacts]) -> int:
    """Of the shorter side, in pixels: the centre square is what networks see."""
    return int(np.median([min(each.size) for each in facts]))


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
