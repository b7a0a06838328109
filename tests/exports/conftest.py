"""Folders of untrained students, as a training leaves them."""

import random

import pytest
from safetensors.torch import save

from tvt_ray.exports import StudentCard, write_trained
from tvt_ray.students import build_student

CLASSES = ("ants", "bees", "wasps")


def write_folder(folder, space, arch=None, results=None, class_names=CLASSES, seed=0):
    """All that is written when a student is trained; returns the folder."""
    arch = arch or space.sample(random.Random(0))
    card = StudentCard(space, arch, class_names, {"test_acc": 91.5} if results is None else results)
    weights = save(build_student(space, arch, len(class_names), seed=seed).state_dict())
    write_trained(folder, card, weights, [{"epoch": 1, "val_acc": 90.0}])
    return folder


@pytest.fixture
def student_folder(space, tmp_path):
    """Of each space in turn."""
    return write_folder(tmp_path / "student", space)
