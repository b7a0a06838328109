"""What is in a dataset, and what of it a person should look at before a long run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Dataset
from tvt_ray.data.survey import Duplicates, Survey, find_duplicates, header_facts, median_side, survey, tell
from tvt_ray.planning.inherited import image_size_on_stages
from tvt_ray.report.contact_sheet import write_contact_sheets
from tvt_ray.teachers.published import CANDIDATES, is_here
from tvt_ray.verbs.labels import LabelReport, look_at_labels


@dataclass(frozen=True)
class Imbalance:
    """How unevenly the classes are filled."""

    largest: str  # class by training images
    smallest: str
    ratio: float  # how many times as many training images the largest has
    majority_percent: Mapping[str, float]  # by split: what saying one class always is right for, at most


@dataclass(frozen=True)
class DataDescription:
    """What `check-data --json` prints."""

    dataset: str
    num_classes: int
    num_images: Mapping[str, int]  # by split
    classes: Mapping[str, Mapping[str, int]]  # images by class and split
    origins: Mapping[str, str]  # where each split is from, where that is known
    notes: tuple[str, ...]  # what was left out, and what looks wrong beside duplicates
    imbalance: Imbalance
    images: Survey
    duplicates: Duplicates
    contact_sheets: tuple[str, ...]  # paths
    labels: LabelReport | None = None  # None: not asked for, no pretrained weights are here, or too many images


def describe_data(
    settings: DataSettings, image_size: int, out: Path | None = None, with_labels: bool = False
) -> DataDescription:
    """After decoding every image once, for networks that see `image_size` pixels; `out`: a folder for contact sheets.

    `with_labels`: also which labels look wrong to a pretrained network, where weights of one are on this machine.

    Raises UsageError for whatever is wrong with the dataset.
    """
    data = load_dataset(settings)
    has_gpu = torch.cuda.is_available()
    images, duplicates = survey(data, has_gpu, image_size), find_duplicates(data)
    if any(map(is_here, CANDIDATES)):  # students then begin with stages of a pretrained teacher
        side = image_size_on_stages(median_side(header_facts(data)), has_gpu)
        images = dataclasses.replace(images, recommended_image_size=side)
    said = tell(duplicates)
    sheets = write_contact_sheets(out, data, image_size) if out else []
    counts = {
        name: np.bincount(split.labels, minlength=data.num_classes).tolist() for name, split in data.splits.items()
    }
    return DataDescription(
        dataset=data.name,
        num_classes=data.num_classes,
        num_images={name: len(split) for name, split in data.splits.items()},
        classes={label: {name: counts[name][i] for name in counts} for i, label in enumerate(data.class_names)},
        origins=data.origins,
        notes=tuple(note for note in data.notes if note not in said),
        imbalance=_imbalance(data),
        images=images,
        duplicates=duplicates,
        contact_sheets=tuple(map(str, sheets)),
        labels=look_at_labels(data, out) if with_labels else None,
    )


def _imbalance(data: Dataset) -> Imbalance:
    counts = np.bincount(data.train.labels, minlength=data.num_classes)
    most, least = int(counts.argmax()), int(counts.argmin())
    shares = {name: round(100 * np.bincount(split.labels).max() / len(split), 2) for name, split in data.splits.items()}
    names = data.class_names
    return Imbalance(names[most], names[least], round(float(counts[most] / counts[least]), 2), shares)
