"""What a leak is worth: copies of photographs on both sides of a split, or on one.

python -m benchmarks leak PHOTOS [--seeds 3]

PHOTOS is an image folder with a test or val split of its own. Of each training photograph a second file is written,
mirrored, a tenth smaller and compressed again, as people augment a dataset before they split it. Test images are carved
from those files: by each class's share alone, and with images that look alike on one side. A linear head on frozen
features of a pretrained teacher learns the rest. The result, by seed and kind of split: `carved`, accuracy on the test
images that were carved, and `real`, on those of the folder's own split, which no copy is of; percent.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import ImageOps

from benchmarks.runner import Record
from tvt_ray.cli.output import print_table
from tvt_ray.data import grouping
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Split
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.teachers.published import choose_published
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining, teacher_accuracy

KINDS = ("apart", "together")  # copies of one photograph, on sides that chance chooses, or on one


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", metavar="PHOTOS", type=Path)
    parser.add_argument("--seeds", type=int, default=3, metavar="N")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    return {"by_seed": [record.once(f"seed{seed}", leak, args.photos, seed) for seed in range(args.seeds)]}


def show(result: Mapping[str, Any]) -> None:
    rows = []
    for kind in KINDS:
        found = [each[kind] for each in result["by_seed"]]
        means = [f"{np.mean([each[name] for each in found]):.1f}" for name in ("carved", "real")]
        rows.append([f"copies {kind}", *means])
    print_table("accuracy, percent, mean over seeds", ["", "on carved test images", "on the real test split"], rows)


def leak(photos: Path, seed: int) -> dict[str, dict[str, float]]:
    original = load_dataset(DataSettings(name=f"imagefolder:{photos}"))
    settings = TeacherSettings(name=f"timm:{choose_published()}", pretrained=True)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = _augmented(original.train, original.class_names, Path(place) / "augmented")
        for kind in KINDS:
            compared = grouping.MOST_IMAGES if kind == "together" else 0
            with mock.patch.object(grouping, "MOST_IMAGES", compared):
                data = load_dataset(DataSettings(name=f"imagefolder:{folder}", split_seed=seed))
            teacher, _ = get_teacher(settings, TeacherTraining(seed=seed), data)
            tests = {"carved": data.test, "real": original.test}
            found[kind] = {name: round(teacher_accuracy(teacher, test), 2) for name, test in tests.items()}
    return found


def _augmented(split: Split, names: tuple[str, ...], folder: Path) -> Path:
    for number in range(len(split)):
        image, label = split[number]
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number}.png")
        copy = ImageOps.mirror(image).resize((round(0.9 * image.width), round(0.9 * image.height)))
        copy.save(place / f"{number}_augmented.jpg", quality=85)
    return folder
