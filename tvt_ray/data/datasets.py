"""The table of datasets. Adding one is a function here and a row in `DATASETS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from tvt_ray.data.builtin import chaoyang, cifar, digits, flowers102
from tvt_ray.data.folders import image_folder
from tvt_ray.data.parquet import parquet_dataset
from tvt_ray.data.settings import DataSettings, Parts
from tvt_ray.data.splits import Dataset, Split, carve
from tvt_ray.errors import UsageError


def load_dataset(settings: DataSettings) -> Dataset:
    """Raises UsageError for an unknown name, a missing path, an empty class, labels that do not fit."""
    name, colon, path = settings.name.partition(":")
    if name not in DATASETS:
        raise UsageError(
            f"unknown dataset {settings.name!r}{_nearest(name)}; choices: {', '.join(describe_datasets())}"
        )
    loader, takes_path = DATASETS[name]
    if takes_path and not path:
        raise UsageError(f"dataset {name!r} needs a path, as in {name}:PATH")
    if colon and not takes_path:
        raise UsageError(f"dataset {name!r} takes no path; it is read from data.root ({settings.root})")
    if takes_path and not Path(path).exists():
        raise UsageError(f"dataset {settings.name!r}: there is no {path}")
    train, test, val, class_names = loader(settings, Path(path))
    for part in filter(None, (train, test, val)):
        _check_labels(settings.name, part, len(class_names))
    if test is None:
        train, test = carve(train, settings.test_fraction, settings.split_seed, "test")
    if val is None:
        train, val = carve(train, settings.val_fraction, settings.split_seed, "validation")
    return Dataset(settings.name, train, val, test, tuple(class_names))


def describe_datasets() -> list[str]:
    """The names as people write them."""
    return [f"{name}:PATH" if takes_path else name for name, (_, takes_path) in DATASETS.items()]


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, DATASETS, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_labels(name: str, split: Split, num_classes: int) -> None:
    if len(split) == 0:
        raise UsageError(f"dataset {name!r} has an empty split")
    low, high = split.labels.min(), split.labels.max()
    if low < 0 or high >= num_classes:
        raise UsageError(
            f"dataset {name!r}: labels go from 0 to {num_classes - 1} for {num_classes} classes; got {low} to {high}"
        )


Loader = Callable[[DataSettings, Path], Parts]


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
