"""What is in a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.verify import verify_images


@dataclass(frozen=True)
class DataDescription:
    """What `check-data --json` prints."""

    dataset: str
    num_classes: int
    num_images: Mapping[str, int]  # by split
    classes: Mapping[str, Mapping[str, int]]  # images by class and split


def describe_data(settings: DataSettings) -> DataDescription:
    """After decoding every image once. Raises UsageError for whatever is wrong with it."""
    data = load_dataset(settings)
    verify_images(data)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    counts = {name: np.bincount(split.labels, minlength=data.num_classes).tolist() for name, split in splits.items()}
    return DataDescription(
        dataset=data.name,
        num_classes=data.num_classes,
        num_images={name: len(split) for name, split in splits.items()},
        classes={label: {name: counts[name][i] for name in splits} for i, label in enumerate(data.class_names)},
    )
