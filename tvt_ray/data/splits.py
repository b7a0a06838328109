"""A dataset is three splits. Validation is carved from training data by class, seeded; test is never used to choose."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.images import ImageSource
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError

CARVED = "carved"  # how the origin of a split begins that was split off another here
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """A view of some images of a source, with their labels (int64, 0 to classes - 1)."""

    source: ImageSource
    all_labels: NDArray[np.int64]
    indices: Indices
    all_groups: Indices | None = None  # the group of each image of the source; None: none belong together

    @classmethod
    def whole(cls, source: ImageSource, labels: Sequence[int] | NDArray[np.int64]) -> Split:
        """All images of a source."""
        return cls(source, np.asarray(labels, np.int64), np.arange(len(source)))

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the split's images, in order: (n,) int64."""
        return self.all_labels[self.indices]

    @property
    def groups(self) -> Indices | None:
        """Numbers of the groups of the split's images, in order: those of one look alike, or are said to be of one."""
        return None if self.all_groups is None else self.all_groups[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        position = int(self.indices[index])
        return self.source[position], int(self.all_labels[position])

    def take(self, indices: Indices) -> Split:
        """The images at these places of the split."""
        return Split(self.source, self.all_labels, self.indices[indices], self.all_groups)

    def sample(self, count: int) -> Split:
        """So many images at most, evenly spread over the split."""
        return self.take(spread(len(self), count))

    def portable(self) -> Split:
        """The same split for another machine: holds its own images and no others."""
        return Split.whole(self.source.portable(self.indices), self.labels)


def spread(total: int, count: int) -> Indices:
    """So many places at most of `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).astype(np.int64))


@dataclass(frozen=True)
class JoinedImages:
    """The images of two sources, those of the first one first."""

    first: ImageSource
    second: ImageSource

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> Image.Image:
        behind = index - len(self.first)
        return self.first[index] if behind < 0 else self.second[behind]

    def fingerprint(self) -> str:
        """Of both."""
        return hashlib.sha256(f"{self.first.fingerprint()} {self.second.fingerprint()}".encode()).hexdigest()

    def portable(self, indices: NDArray[np.int64]) -> ImageSource:
        """Those at `indices`, which rise."""
        count = int(np.searchsorted(indices, len(self.first)))
        first, second = self.first.portable(indices[:count]), self.second.portable(indices[count:] - len(self.first))
        return JoinedImages(first, second)


def joined(first: Split, second: Split) -> Split:
    """The images of two splits as one, those of the first one first; they hold no others."""
    source = JoinedImages(first.source.portable(first.indices), second.source.portable(second.indices))
    return Split.whole(source, np.concatenate([first.labels, second.labels]))


class Loaded(NamedTuple):
    """What a loader gives. A split that is None is carved from training images."""

    train: Split
    test: Split | None
    val: Split | None
    class_names: Sequence[str]
    notes: Sequence[str] = ()  # what a person should know of how it was read
    origins: Mapping[str, str] = {}  # of train, val and test, where each is from
    groups: Mapping[str, Sequence[str]] = {}  # by split, of its images in order, what a column says they are of


def place_splits(
    found: Mapping[str, Split],
    class_names: Sequence[str],
    notes: Sequence[str] = (),
    origins: Mapping[str, str] = {},
    groups: Mapping[str, Sequence[str]] = {},
) -> Loaded:
    """What the splits that were found are used for. `found`, `origins`: by name, train among them.

    With val but no test, val is the test split: nothing is chosen on it, so validation is carved from train.
    """
    if "val" not in found or "test" in found:
        return Loaded(found["train"], found.get("test"), found.get("val"), class_names, notes, origins, groups)
    said = "there is no test split: val is used as it, and validation is carved from train"
    moved = {"test" if name == "val" else name: origin for name, origin in origins.items()}
    told = {"test" if name == "val" else name: each for name, each in groups.items()}
    return Loaded(found["train"], found["val"], None, class_names, (said, *notes), moved, told)


@dataclass(frozen=True)
class Dataset:
    """`name` as the settings have it; class i is called class_names[i]."""

    name: str
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what a person should know of how it was read: what was left out, what looks wrong
    origins: Mapping[str, str] = field(default_factory=dict)  # of splits, where it is known: a folder, or "carved …"
    settings: DataSettings | None = None  # by which it was loaded
    loaded: Loaded | None = None  # what was loaded, from which the splits can be carved otherwise

    @property
    def num_classes(self) -> int:
        """Classes, whether or not a split has images of each."""
        return len(self.class_names)

    @property
    def splits(self) -> Mapping[str, Split]:
        """By name: train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def split(self, name: str) -> Split:
        """One by its name. Raises UsageError that lists the choices."""
        if name not in self.splits:
            raise UsageError(f"unknown split {name!r}; choices: {', '.join(self.splits)}")
        return self.splits[name]

    def fingerprint(self) -> str:
        """Changes when images, labels, classes or the way they are split do."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        hasher = hashlib.sha256("\n".join(self.class_names).encode())
        for split in self.splits.values():
            hasher.update(split.source.fingerprint().encode())
            hasher.update(split.indices.tobytes() + split.labels.tobytes())
        return hasher.hexdigest()[:16]


def carve(split: Split, fraction: float, seed: int, leave: int = 1) -> tuple[Split, Split]:
    """Splits off `fraction` of the images, the same share of every class: (rest, carved).

    All images of a group (`Split.groups`) go to one side, as near to the share as that allows. Of each class at least
    one image is carved and `leave` stay, though a share would be less; a class of so few groups that this cannot be has
    its groups parted. So every class of `split` has `leave` + 1 images; raises ValueError where one has fewer.
    """
    groups = split.groups
    classes, counts = np.unique(split.labels, return_counts=True)
    if counts.min(initial=leave + 1) <= leave:
        raise ValueError(f"class {classes[counts.argmin()]} has {counts.min()} images; {leave + 1} are needed to carve")
    if groups is None or len(np.unique(groups)) == len(split):
        groups = None
        rest, carved = _by_share(split, fraction, seed, len(classes))
    else:
        rest, carved = _by_groups(split, fraction, seed, groups)
        classes = np.tile(classes, 2)  # a group that goes for one class may be another's too
    for label in classes:
        rest, carved = _top_up(split.labels == label, rest, carved, 1, groups)
        carved, rest = _top_up(split.labels == label, carved, rest, leave, groups)
    return split.take(np.sort(rest)), split.take(np.sort(carved))


def _by_share(split: Split, fraction: float, seed: int, num_classes: int) -> tuple[Indices, Indices]:
    from sklearn.model_selection import train_test_split  # takes over a second, and scoring workers carve nothing

    size = min(max(round(fraction * len(split)), num_classes), len(split) - num_classes)
    rest, carved = train_test_split(np.arange(len(split)), test_size=size, stratify=split.labels, random_state=seed)
    return rest, carved


def _by_groups(split: Split, fraction: float, seed: int, groups: Indices) -> tuple[Indices, Indices]:
    """One of so many folds that one is about the share, or all but one where most is carved."""
    from sklearn.model_selection import StratifiedGroupKFold

    share = min(fraction, 1 - fraction)
    most = min(len(np.unique(groups)), int(np.bincount(split.labels).max()))
    folds = StratifiedGroupKFold(max(2, min(round(1 / share), most)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds, which are topped up
        rest, carved = next(iter(folds.split(np.zeros(len(split)), split.labels, groups)))
    return (rest, carved) if fraction <= 0.5 else (carved, rest)


def _top_up(
    mine: NDArray[np.bool_], giver: Indices, taker: Indices, wanted: int, groups: Indices | None
) -> tuple[Indices, Indices]:
    """(giver, taker) after images of a class, `mine`, went over until the taker has as many as `wanted`.

    Stratifying rounds the share of a small class to none, or to all of it. Whole groups go, the smallest first, while
    the giver keeps some of the class; then the class's first images by themselves.
    """
    while groups is not None and mine[taker].sum() < wanted:
        held, sizes = np.unique(groups[giver[mine[giver]]], return_counts=True)
        if len(held) < 2:
            break
        goes = np.isin(groups[giver], held[sizes.argmin()])
        giver, taker = giver[~goes], np.concatenate([taker, giver[goes]])
    moved = giver[mine[giver]][: max(0, wanted - int(mine[taker].sum()))]
    return giver[~np.isin(giver, moved)], np.concatenate([taker, moved])
