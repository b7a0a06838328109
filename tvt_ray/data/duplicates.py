"""The same image more than once, by content: in one class, in two classes, in two splits."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tvt_ray.data.hashes import bytes_hash
from tvt_ray.data.images import EncodedImages
from tvt_ray.data.notes import counted
from tvt_ray.data.splits import Dataset, Split


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
    groups = [group for group in copies.values() if len(group) > 1]

    def repeats(find: Callable[[Sequence[_Copy]], _Pair | None]) -> Repeats:
        pairs = [pair for pair in map(find, groups) if pair is not None]
        example = [name_of(data, copy.split, copy.position) for copy in pairs[0]] if pairs else []
        return Repeats(len(pairs), tuple(example))

    return Duplicates(
        within_class=repeats(_alike),
        between_classes=repeats(functools.partial(_unlike, key=lambda copy: copy.label)),
        between_splits=repeats(functools.partial(_unlike, key=lambda copy: copy.split)),
    )


def duplicate_notes(data: Dataset) -> list[str]:
    """What makes a dataset's accuracies mean less than they seem to; of encoded images alone."""
    if not all(isinstance(split.source, EncodedImages) for split in data.splits.values()):
        return []
    found = find_duplicates(data)
    return tell(dataclasses.replace(found, within_class=Repeats(0, ())))


def tell(found: Duplicates) -> list[str]:
    """A sentence for each kind that there is."""
    kinds = (
        (found.within_class, "twice in one class", "it counts double"),
        (found.between_classes, "in more than one class", "at most one of the labels is right"),
        (found.between_splits, "in more than one split", "accuracy there counts what was seen in training"),
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
