"""Which images of a dataset belong together, and so to one side of a split that is carved: alike, or said to be."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tvt_ray.data.images import EncodedImages
from tvt_ray.data.looking import Seen, look_at
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Indices, Loaded, Split
from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import Meter
from tvt_ray.storage.locations import cache_folder, shown, write_atomically

SCHEME = "near-1"  # changes with what is compared and how
MOST_IMAGES = 20_000  # that are compared with each other: seconds on two cores
LEAST_SIDE = 16  # pixels: smaller images have too little in them to tell a copy from another of its class
QUIET = 1000  # images that are compared without a line about it


def grouped(loaded: Loaded, settings: DataSettings) -> Loaded:
    """With each image's group: of those that look alike in any split, joined with what `data.group_by` says.

    Arrays' images are not looked at, and not more than MOST_IMAGES, which a note says. Raises UsageError where
    `data.group_by` says nothing of an image, and for an image that is not whole.
    """
    splits = {"train": loaded.train, "val": loaded.val, "test": loaded.test}
    given = {name: split for name, split in splits.items() if split is not None}
    said = {name: loaded.groups.get(name) or _by_name(split, settings) for name, split in given.items()}
    encoded = all(isinstance(split.source, EncodedImages) for split in given.values())
    count, notes = sum(map(len, given.values())), list(loaded.notes)
    if encoded and count <= MOST_IMAGES:
        alike = _alike(given)
    else:
        alike = np.arange(count)
        notes += [f"more than {MOST_IMAGES:,} images: which look alike is not looked for"] if encoded else []
    if any(said.values()):
        alike = _joined(alike, [f"{each}" for name in given for each in said[name]])
    elif not encoded:
        return loaded
    parts = np.split(alike, np.cumsum([len(split) for split in given.values()])[:-1])
    for (name, split), groups in zip(given.items(), parts, strict=True):
        of_all = np.full(len(split.source), -1)
        of_all[split.indices] = groups
        given[name] = dataclasses.replace(split, all_groups=of_all)
    return loaded._replace(train=given["train"], val=given.get("val"), test=given.get("test"), notes=tuple(notes))


def _alike(splits: Mapping[str, Split]) -> Indices:
    """The group of each image of all splits, one after the other; kept in the cache by the images' contents."""
    from tvt_ray.data.near import SIDE, near_groups, thumbnail  # imports torch

    told = [
        f"{split.source.fingerprint()} {hashlib.sha256(split.indices.tobytes()).hexdigest()}"
        for split in splits.values()
    ]
    key = hashlib.sha256(" ".join([SCHEME, *told]).encode()).hexdigest()[:16]
    file, count = cache_folder() / "decoded" / f"{key}.near", sum(map(len, splits.values()))
    if (known := _recall(file, count)) is not None:
        return known
    thumbnails, hashes = np.empty((count, SIDE, SIDE, 3), np.uint8), list[str]()
    for number, (digest, seen) in enumerate(_looked_at(splits, count, 2 * SIDE)):
        assert seen.pixels is not None
        is_large = min(seen.pixels.shape[:2]) >= LEAST_SIDE
        thumbnails[number] = thumbnail(seen.pixels) if is_large else 0
        hashes.append(digest)
    found = near_groups(thumbnails, hashes)
    with contextlib.suppress(RunError):  # a cache that cannot be written costs a second look, and nothing else
        write_atomically(file, found.tobytes())
    return found


def _recall(file: Path, count: int) -> Indices | None:
    """None where it is not there, or not whole."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    return np.frombuffer(data, np.int64) if len(data) == 8 * count else None


def _looked_at(splits: Mapping[str, Split], count: int, side: int) -> Iterator[tuple[str, Seen]]:
    """(hash, what is seen) of each image of all splits."""
    with Meter("comparing images", count, "images") if count > QUIET else contextlib.nullcontext() as meter:
        for split in splits.values():
            assert isinstance(split.source, EncodedImages)
            order = split.indices.tolist()
            for index, seen in zip(order, look_at(split.source, order, side=side), strict=True):
                yield split.source.hashes[index], seen
                if meter:
                    meter.advance(1)


def _by_name(split: Split, settings: DataSettings) -> Sequence[str]:
    """What `data.group_by` finds in each image's name; nothing where it is not set."""
    if settings.group_by is None:
        return ()
    if not isinstance(split.source, EncodedImages):
        raise UsageError(f"data.group_by groups images by their names; those of dataset {settings.name!r} have none")
    root, pattern, found = settings.name.partition(":")[2], re.compile(settings.group_by), list[str]()
    for index in split.indices.tolist():
        name = split.source.name(index).removeprefix(f"{root}/")
        match = pattern.search(name)
        if match is None:
            raise UsageError(
                f"data.group_by {shown(settings.group_by)} is no column, and in no part of the name {name}"
            )
        found.append(match[match.lastindex or 0])
    return found


def _joined(groups: NDArray[np.int64], said: Sequence[str]) -> Indices:
    """Groups of images that either of both puts together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(groups)
    _, first = np.unique(groups, return_inverse=True)
    _, second = np.unique(np.asarray(said), return_inverse=True)
    nodes = np.concatenate([count + first, 2 * count + second])  # a node for each image, and for each group of either
    edges = (np.ones(2 * count), (np.tile(np.arange(count), 2), nodes))
    _, found = connected_components(coo_matrix(edges, (3 * count, 3 * count)), directed=False)
    whole: Indices = found[:count].astype(np.int64)
    return whole
