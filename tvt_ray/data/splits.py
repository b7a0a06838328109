"""A dataset is three splits. Validation is carved from training data by class, seeded; test is never used to choose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.images import ImageSource
from tvt_ray.errors import UsageError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """A view of some images of a source, with their labels (int64, 0 to classes - 1)."""

    source: ImageSource
    all_labels: NDArray[np.int64]
    indices: Indices

    @classmethod
    def whole(cls, source: ImageSource, labels: Sequence[int] | NDArray[np.int64]) -> Split:
        """All images of a source."""
        return cls(source, np.asarray(labels, np.int64), np.arange(len(source)))

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the split's images, in order: (n,) int64."""
        return self.all_labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        position = int(self.indices[index])
        return self.source[position], int(self.all_labels[position])

    def take(self, indices: Indices) -> Split:
        """The images at these places of the split."""
        return Split(self.source, self.all_labels, self.indices[indices])

    def portable(self) -> Split:
        """The same split for another machine: holds its own images and no others."""
        return Split.whole(self.source.portable(self.indices), self.labels)


@dataclass(frozen=True)
class Dataset:
    """`name` as the user gave it; class i is called class_names[i]."""

    name: str
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Classes, whether or not a split has images of each."""
        return len(self.class_names)

    def split(self, name: str) -> Split:
        """One by its name. Raises UsageError that lists the choices."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        if name not in splits:
            raise UsageError(f"unknown split {name!r}; choices: {', '.join(splits)}")
        return splits[name]

    def fingerprint(self) -> str:
        """Changes when images, labels, classes or the way they are split do."""
        hasher = hashlib.sha256("\n".join(self.class_names).encode())
        sources: dict[int, str] = {}
        for split in (self.train, self.val, self.test):
            key = id(split.source)
            sources[key] = sources.get(key) or split.source.fingerprint()
            hasher.update(sources[key].encode())
            hasher.update(split.indices.tobytes() + split.labels.tobytes())
        return hasher.hexdigest()[:16]


def carve(split: Split, fraction: float, seed: int, what: str) -> tuple[Split, Split]:
    """Splits off `fraction` of the images, the same share of every class (at least one image of each): (rest, carved).

    Raises UsageError when a class has fewer than two images, naming it by number.
    """
    from sklearn.model_selection import train_test_split  # takes over a second, and scoring workers carve nothing

    classes, counts = np.unique(split.labels, return_counts=True)
    if counts.min(initial=2) < 2:
        raise UsageError(
            f"class {classes[counts.argmin()]} has a single image: at least two are needed to carve a {what} split"
        )
    size = max(round(fraction * len(split)), len(classes))
    if len(split) - size < len(classes):
        raise UsageError(f"{len(split)} images of {len(classes)} classes are too few to carve a {what} split from")
    rest, carved = train_test_split(np.arange(len(split)), test_size=size, stratify=split.labels, random_state=seed)
    return split.take(np.sort(rest)), split.take(np.sort(carved))
