"""A run folder made by hand, of real rows, on either kind of store."""

import itertools

import pyarrow.fs as pafs
import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.reader import ReadingTask, make_row
from tvt_ray.scoring.scores import Calibration
from tvt_ray.storage.locations import RemotePath

SPACE = SMALL_SPACES["pit"]


@pytest.fixture
def remote(tmp_path):
    return RemotePath(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "bucket/run", "s3://bucket/run")


@pytest.fixture(params=["local", "remote"])
def location(request, tmp_path, remote):
    return remote if request.param == "remote" else tmp_path / "bucket" / "run"


@pytest.fixture
def run_config():
    """What the rows below are of."""
    proxies = ("attention_similarity", "l2_norm", "rank_sum", "log_norm")
    return load_config(None, [{"space": SPACE.model_dump(mode="json"), "score": {"proxies": proxies}}])


@pytest.fixture
def rows():
    """Twelve architectures with readings that are made up, and one that failed."""
    task = ReadingTask(SPACE, 10, (), 0, probe=None)

    def readings(number):
        return {
            "attention_similarity": -1.0 / (number + 1),
            "l2_norm": (7.0 * number) % 5,
            "rank_sum": (3.0 * number) % 11,
            "log_norm": 1.0 + number,
        }

    archs = list(itertools.islice(SPACE.enumerate(), 13))
    read = [make_row(task, arch, readings(number), None, 0.5) for number, arch in enumerate(archs[:12])]
    return [*read, make_row(task, archs[12], {}, "RuntimeError: no", 0.1)]


@pytest.fixture
def run_folder(location, run_config, rows):
    """Written with the classes that a search writes it with."""
    folder = RunFolder(location)
    folder.make()
    folder.claim(run_config)
    folder.rows().append(rows[:5])
    folder.rows().append(rows[5:])
    Calibration.from_rows(rows[:8]).save(folder.calibration_file)
    return folder
