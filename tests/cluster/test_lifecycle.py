"""search.py as a process that is killed, asked to end, or interrupted."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import SMALLER, readings, start_search, wait_for_rows
from tests.cluster.processes import workers_of
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.recorder import Sampler
from tvt_ray.vits.budget import Limits

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_killed_and_resumed_it_ends_with_exactly_what_was_asked_for(cluster, config, teacher, tmp_path):
    """SIGKILL of the driver in mid-search; then the same set as a search that nobody disturbed."""
    folder, wanted = tmp_path / "run", 200
    process = start_search(
        folder, *SMALLER, "--num-samples", str(wanted), "--archs-per-trial", "4", "--ray-address", cluster
    )
    wait_for_rows(process, folder, 40)
    process.kill()
    process.communicate()
    seen = readings(folder)
    assert 0 < len(seen) < wanted
    process = start_search(folder, "--resume", "--ray-address", cluster)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["num_scored"] == wanted
    final = readings(folder)
    assert len(final) == wanted
    assert seen.items() <= final.items()  # nothing that was on disk is lost or changed
    undisturbed = Sampler(
        build_algorithm(RunConfig().search, config.space, 0), Limits(config.space, config.budget, 10), 0
    )
    assert final.keys() == {config.space.arch_id(undisturbed.ask()) for _ in range(wanted)}


@pytest.mark.night
def test_a_worker_that_is_killed_leaves_no_trace_and_a_run_that_is_interrupted_says_how_to_go_on(
    cluster, teacher, tmp_path
):
    """SIGKILL of one of two scoring processes; once it is replaced, Ctrl-C for the whole run."""
    process, folder = _started(cluster, tmp_path)
    wait_for_rows(process, folder, 12)
    os.kill(workers_of(cluster, "ScoringTrial")[-1], signal.SIGKILL)
    wait_for_rows(process, folder, len(readings(folder)) + 100)
    rows = RunFolder(folder).rows().read()
    assert {row.status for row in rows} == {"ok"}
    assert len({row.arch_id for row in rows}) == len(rows)
    _ends_in_order(process, folder, signal.SIGINT)


def test_asked_to_end_it_keeps_its_rows_and_says_how_to_go_on(cluster, teacher, tmp_path):
    process, folder = _started(cluster, tmp_path)
    wait_for_rows(process, folder, 12)
    _ends_in_order(process, folder, signal.SIGTERM)


def _started(cluster: str, tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A search on two workers that would take long."""
    flags = ["--num-samples", "5000", "--archs-per-trial", "4", "--ray-address", cluster]
    return start_search(tmp_path / "run", *SMALLER, *flags), tmp_path / "run"


def _ends_in_order(process: subprocess.Popen[str], folder: Path, number: signal.Signals) -> None:
    before = len(readings(folder))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 1), err
    assert out == ""
    begins = "error: interrupted; go on with: " if number == signal.SIGINT else "error: stopped after "
    assert err.splitlines()[-1].startswith(begins)
    assert f"python search.py --run-dir {folder} --json " in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("--resume")
    assert "Traceback" not in err
    assert "*** SIG" not in err
    assert len(readings(folder)) >= before


@pytest.mark.night
def test_asked_to_end_while_the_teacher_trains_it_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    process = start_search(folder, "--set", "teacher_training.epochs=500")
    deadline = time.monotonic() + 60
    while not (folder / "config.yaml").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    last = err.splitlines()[-1]
    assert last.startswith("error: interrupted")
    assert last.endswith(
        f"go on with: python search.py --run-dir {folder} --json --set teacher_training.epochs=500 --resume"
    )
    assert "Traceback" not in err
