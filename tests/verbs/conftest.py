"""A run of an image folder, as a search leaves it, made by hand and so without Ray."""

import itertools
import shutil

import pytest

from tests.conftest import SMALL_SPACES
from tests.data.samples import write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.scoring.reader import ReadingTask, make_row
from tvt_ray.scoring.scores import Calibration

SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten images."""
    return write_class_folders(tmp_path / "photos", ["ants", "bees"], 10)


@pytest.fixture
def config_of():
    """The settings of a run on the images of a folder that needs no teacher."""

    def config_of(folder, **sections):
        settings = {"data": {"name": f"imagefolder:{folder}"}, "probe": {"num_images": 4}, "search": {"num_samples": 3}}
        score = {"readings": "score", "calibration_samples": 2}
        return load_config(None, [{"space": SPACE.model_dump(mode="json"), "score": score, **settings}, sections])

    return config_of


@pytest.fixture
def run_folder(photos, config_of, tmp_path):
    """A finished run on the photos."""
    folder, config = RunFolder(tmp_path / "run"), config_of(photos)
    folder.make()
    folder.keep_data(DataIdentity.of(load_dataset(config.data), config.probe))
    folder.claim(config.resolved())
    task = ReadingTask(SPACE, 2, (), 0, probe=None)
    archs = itertools.islice(SPACE.enumerate(), 3)
    rows = [make_row(task, arch, {"rank_sum": n + 1.0, "log_norm": 2.0 * n}, None, 0.5) for n, arch in enumerate(archs)]
    folder.rows().append(rows)
    Calibration.from_rows(rows).save(folder.calibration_file)
    return folder


@pytest.fixture
def student(digits_student, tmp_path):
    """A run of its own, so that what is written is seen by one test."""
    shutil.copytree(digits_student.parents[1], tmp_path / "run")
    return tmp_path / "run" / "distill" / digits_student.name


@pytest.fixture
def alone(student, tmp_path):
    """The folder without its run."""
    return shutil.copytree(student, tmp_path / "alone")
