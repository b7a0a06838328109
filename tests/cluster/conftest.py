"""A finished run that the tests of this folder share, and ways to make others."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tvt_ray
from benchmarks.ground_truth import sample_archs
from tests.conftest import REPO, SMALL_SPACES, TEACHER, set_flags
from tests.data.samples import write_class_folders
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.inputs import load_data, make_task
from tvt_ray.runs.run import SearchSummary
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.scores import Calibration

# As a user types them, for a search of seconds on two workers.
SMALLER = [
    *set_flags({**TEACHER, "score": {"calibration_samples": 8}, "probe": {"num_images": 10}}),
    *set_flags({"cluster": {"scoring_workers": 2, "gpus_per_trial": 0, "gpus_per_training_worker": 0}}),
]

WIDER = SMALL_SPACES["autoformer"].model_copy(update={"embed_dim": (12, 18, 24)})  # 21 shapes
RUNGS = {"rungs": [1, 2], "num_students": 9, "repeats": 1}


def variant(config: RunConfig, **sections: Any) -> RunConfig:
    """The session's small run with some settings changed, section by section."""
    return load_config(None, [config.model_dump(mode="json"), sections])


def readings(folder: Path) -> dict[str, dict[str, float]]:
    """What a run read, by architecture."""
    return {row.arch_id: dict(row.readings) for row in RunFolder(folder).rows().read()}


def start_search(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """search.py as a process."""
    command = [sys.executable, "search.py", "--run-dir", str(folder), "--json", *flags]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process: subprocess.Popen[str], folder: Path, count: int) -> int:
    """Until so many are on disk, or the process has ended: how many there are."""
    deadline = time.monotonic() + 120
    while (found := len(readings(folder))) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Fails where it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="session")
def finished(
    cluster: str, config: RunConfig, teacher: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SearchSummary]:
    """A finished run of 24 architectures, and what the search said of it."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    settings = {"gpus_per_trial": 0, "archs_per_trial": 3}
    return folder, tvt_ray.search(variant(config, cluster=settings), run_dir=folder).summary


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """A finished run on 120 noisy squares of three sizes, as a search leaves it, and settings that train in seconds."""
    folder = RunFolder(tmp_path_factory.mktemp("searched") / "run")
    photos = write_class_folders(tmp_path_factory.mktemp("photos"), ["ants", "bees", "wasps"], 40)
    config = load_config(
        None,
        [
            {"space": WIDER.model_dump(mode="json"), "data": {"name": f"imagefolder:{photos}"}},
            {"score": {"readings": "score", "calibration_samples": 8}, "probe": {"num_images": 4}},
            {"teacher": {"image_size": 16}, "teacher_training": {"epochs": 1, "batch_size": 16}},
            {"distill": {"epochs": 3, "batch_size": 16, "guided": "always"}, "refine": RUNGS},
            {"cluster": {"gpus_per_training_worker": 0, "cpus_per_training_worker": 1, "gpus_per_cohort": 0.5}},
        ],
    )
    data = load_data(config)
    folder.make()
    folder.keep_data(DataIdentity.of(data, config.probe))
    folder.claim(config.resolved())
    rows = Reader(make_task(config, data, None)).read_all(sample_archs(WIDER, 40, seed=0))
    folder.rows().append(rows)
    Calibration.from_rows(rows).save(folder.calibration_file)
    return folder.path, config.resolved()
