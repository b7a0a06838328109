"""Folders of untrained students, as a training leaves them, and their files of other formats."""

import random

import pytest
from safetensors.torch import save

from tests.conftest import SMALL_SPACES, once
from tvt_ray.exports import EXPORTS, StudentCard, write_trained
from tvt_ray.exports.folder import load_student
from tvt_ray.exports.formats import Wish, drawn
from tvt_ray.vits import build_student

CLASSES = ("ants", "bees", "wasps")


def write_folder(folder, space, arch=None, results=None, class_names=CLASSES, seed=0):
    """All that is written when a student is trained; returns the folder."""
    arch = arch or space.sample(random.Random(0))
    card = StudentCard(space, arch, class_names, {"test_acc": 91.5} if results is None else results)
    weights = save(build_student(space, arch, len(class_names), seed=seed).state_dict())
    write_trained(folder, card, weights, [{"epoch": 1, "val_acc": 90.0}])
    return folder


def exported(space, name, pixels=False):
    """A folder with a small student of the space's in `student`, and its files of a format beside, int8 where there is.

    Made once for all tests, which read it: an ONNX file takes seconds.
    """

    def make(folder):
        student = load_student(write_folder(folder / "student", SMALL_SPACES[space]))
        int8 = name == "onnx" and not pixels
        EXPORTS[name].on_demand.write(folder, student, Wish(int8, pixels, drawn(student.image_size) if int8 else None))

    return once(f"{space}-{name}{'-pixels' if pixels else ''}", make)


@pytest.fixture
def student_folder(space, tmp_path):
    """Of each space in turn."""
    return write_folder(tmp_path / "student", space)
