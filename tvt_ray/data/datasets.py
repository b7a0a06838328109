"""The table of datasets. Adding one is a function here and a row in `DATASETS`."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tvt_ray.data.builtin import chaoyang, cifar, digits, flowers102
from tvt_ray.data.duplicates import duplicate_notes
from tvt_ray.data.folders import image_folder
from tvt_ray.data.notes import listing
from tvt_ray.data.parquet import parquet_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import CARVED, Dataset, Loaded, Split, carve
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location


def load_dataset(settings: DataSettings) -> Dataset:
    """Raises UsageError for an unknown name, a missing path, an empty split, a class that lacks images.

    Every class has images in each split that is carved here.
    """
    check_name(settings)
    name, _, path = settings.name.partition(":")
    loader, takes_path = DATASETS[name]
    if takes_path and not Path(path).exists():
        raise UsageError(f"dataset {settings.name!r}: there is no {path}")
    loaded = Loaded(*loader(settings, Path(path)))
    _check_classes(settings.name, loaded)
    return _carved(settings, loaded)


def recarved(data: Dataset, settings: DataSettings) -> Dataset:
    """What `load_dataset` gives, carved anew from what `data` was carved from; read again only where that differs.

    What was decoded once is read again, so this comes before.
    """
    if settings == data.settings:
        return data
    if data.loaded is None or data.settings is None:
        return load_dataset(settings)
    carving = data.settings.model_dump(include={"val_fraction", "test_fraction", "split_seed"})
    only_the_carving = settings.model_copy(update=carving) == data.settings
    return _carved(settings, data.loaded) if only_the_carving else load_dataset(settings)


def check_name(settings: DataSettings) -> None:
    """Raises UsageError for a name that is in no row of the table, lacks its path, or has one that no row reads."""
    name, colon, path = settings.name.partition(":")
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(f"unknown dataset {settings.name!r}{hint}; choices: {', '.join(describe_datasets())}")
    _, takes_path = DATASETS[name]
    if colon and not takes_path:
        raise UsageError(f"dataset {name!r} takes no path; it is read from data.root ({settings.root})")
    if takes_path and not path:
        raise UsageError(f"dataset {settings.name!r} needs a path, as in {name}:PATH")
    if "://" in path:
        raise UsageError(f"dataset {settings.name!r}: datasets are read from a disk; copy this one to a folder first")


def dataset_name(text: str) -> str:
    """A name of the table stays. A path alone is an image folder, or Parquet where it is such a file or holds some."""
    path = Path(text).expanduser()
    if not text or ":" in text or text in DATASETS or not path.exists():
        return text
    holds_parquet = path.suffix == ".parquet" or any(path.rglob("*.parquet"))
    return f"{'parquet' if holds_parquet else 'imagefolder'}:{path}"


def check_outside(path: Location, dataset: str) -> None:
    """Raises UsageError for a folder in a dataset's own, where what is written would be read as a part of it."""
    folder = dataset.partition(":")[2]
    if folder and isinstance(path, Path) and path.resolve().is_relative_to(Path(folder).resolve()):
        raise UsageError(
            f"{path} lies in the dataset's own folder, so that what is written there would be read as a part of it; "
            "choose a folder beside it"
        )


def describe_datasets() -> list[str]:
    """The names as people write them."""
    return [f"{name}:PATH" if takes_path else name for name, (_, takes_path) in DATASETS.items()]


def _check_classes(name: str, loaded: Loaded) -> None:
    names = loaded.class_names
    twice = [each for each, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"dataset {name!r} has more than one class called {listing(twice)}")
    if len(names) < 2:
        raise UsageError(f"dataset {name!r} has the single class {listing(names)}; classification needs at least two")
    for split_name, split in _given(loaded).items():
        _check_labels(name, split_name, split, len(names))
    missing = _missing(loaded.train, names)
    if missing:
        raise UsageError(f"dataset {name!r} has no training images of the class(es) {listing(missing)}")


def _given(loaded: Loaded) -> dict[str, Split]:
    splits = {"train": loaded.train, "val": loaded.val, "test": loaded.test}
    return {name: split for name, split in splits.items() if split is not None}


def _check_labels(name: str, split_name: str, split: Split, num_classes: int) -> None:
    if len(split) == 0:
        raise UsageError(f"dataset {name!r}: the split {split_name} is empty")
    low, high = split.labels.min(), split.labels.max()
    if low < 0 or high >= num_classes:
        raise UsageError(
            f"dataset {name!r}: labels go from 0 to {num_classes - 1} for {num_classes} classes; "
            f"got {low} to {high} in {split_name}"
        )


def _missing(split: Split, names: Sequence[str]) -> list[str]:
    counts = np.bincount(split.labels, minlength=len(names))
    return [name for name, count in zip(names, counts, strict=True) if count == 0]


def _carved(settings: DataSettings, loaded: Loaded) -> Dataset:
    """With test and validation split off the training images where they were not given."""
    train, test, val, names, notes, origins = loaded
    lacking = {name: _missing(split, names) for name, split in _given(loaded).items()}
    said = [f"{name} has no images of {listing(classes)}" for name, classes in lacking.items() if classes]
    wanted = [name for name, split in (("test", test), ("validation", val)) if split is None]
    _check_rare(settings.name, train, names, wanted)
    if test is None:
        train, test = carve(train, settings.test_fraction, settings.split_seed, leave=len(wanted))
        origins = {**origins, "test": f"{CARVED}: {settings.test_fraction:.0%} of the images"}
    if val is None:
        train, val = carve(train, settings.val_fraction, settings.split_seed)
        origins = {**origins, "val": f"{CARVED}: {settings.val_fraction:.0%} of the training images"}
    data = Dataset(settings.name, train, val, test, tuple(names), (*notes, *said), origins, settings, loaded)
    return dataclasses.replace(data, notes=(*data.notes, *duplicate_notes(data)))


def _check_rare(name: str, train: Split, names: Sequence[str], wanted: Sequence[str]) -> None:
    counts = np.bincount(train.labels, minlength=len(names))
    rare = [f"{each} ({count:,})" for each, count in zip(names, counts, strict=True) if count <= len(wanted)]
    if rare:
        raise UsageError(
            f"dataset {name!r}: every class needs {len(wanted) + 1} images, one for training and one for each split "
            f"that is carved from it ({' and '.join(wanted)}); too few: {listing(rare)}"
        )


Loader = Callable[[DataSettings, Path], Loaded]


# name -> (loader, whether the name is followed by :PATH)
DATASETS: dict[str, tuple[Loader, bool]] = {
    "digits": (digits, False),
    "cifar10": (cifar("CIFAR10"), False),
    "cifar100": (cifar("CIFAR100"), False),
    "flowers102": (flowers102, False),
    "chaoyang": (chaoyang, False),
    "imagefolder": (image_folder, True),
    "parquet": (parquet_dataset, True),
}
