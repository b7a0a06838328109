"""Workers on a real Ray cluster: they come, die, hang and are replaced."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import variant
from tests.conftest import REPO
from tvt_ray.cluster import scoring, slots
from tvt_ray.errors import UsageError
from tvt_ray.proxies import PROXIES
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import make_task
from tvt_ray.scoring.faults import DeviceError
from tvt_ray.searchers import batching, build_algorithm, recorder
from tvt_ray.searchers.recorder import Recorder, Sampler, Scorer
from tvt_ray.storage.records import RecordWriter
from tvt_ray.verbs.search import search
from tvt_ray.vits.budget import Limits

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TWO_SLOTS = slots.Slots(2, 0, 2)


@pytest.fixture
def run_workers(finished, config, digits, teacher, tmp_path, monkeypatch):
    """Reads with a task and a trainable of the test's own; gives the rows, the dispatcher and the outcome."""
    import ray

    def run(total, batch, proxies=None, trainable=scoring.ScoringTrial, max_failure_share=1.0, places=TWO_SLOTS):
        task = make_task(config, digits, teacher)
        task = dataclasses.replace(task, proxies=proxies or task.proxies)
        sampler = Sampler(build_algorithm(config.search, task.space, 0), Limits(task.space, config.budget, 10), 0)
        parts = RunFolder(tmp_path).rows()
        monkeypatch.setattr(scoring, "ScoringTrial", trainable)
        with RecordWriter(parts) as writer:
            scorer = Scorer("params", 1, RunFolder(finished[0]).calibration())
            kept = Recorder(writer.put, sampler, scorer, max_failure_share=max_failure_share)
            dispatcher = batching.Dispatcher(task, kept, total, batch)
            outcome = scoring.run_workers(slots.Job(task, ray.put(task), places), dispatcher)
        return parts.read(), dispatcher, outcome

    return run


def first_archs(config, count):
    """What a random search of seed 0 proposes first."""
    sampler = Sampler(build_algorithm(config.search, config.space, 0), Limits(config.space, config.budget, 10), 0)
    return [sampler.ask() for _ in range(count)]


def test_an_architecture_that_fails_is_a_row(run_workers):
    """A proxy that no worker knows raises in every one of them, and the run goes on to its end."""
    rows, dispatcher, _ = run_workers(6, 2, proxies=("attention_similarity", "no-such-proxy"))
    assert len(rows) == 6
    assert {row.status for row in rows} == {"failed"}
    assert all("no-such-proxy" in row.error for row in rows)
    assert "no-such-proxy" not in PROXIES
    assert dispatcher.stop_reason is None


def test_too_many_failures_stop_the_run(run_workers):
    rows, dispatcher, _ = run_workers(400, 5, proxies=("no-such-proxy",), max_failure_share=0.5)
    assert recorder.MIN_ROWS_TO_JUDGE <= len(rows) < 400
    assert re.match(r"\d+ of \d+ architectures failed, more than search.max_failure_share 0.5 ", dispatcher.stop_reason)
    assert "KeyError: 'no-such-proxy'" in dispatcher.stop_reason


def test_dead_workers_are_replaced_and_only_who_kills_them_fails(run_workers, config, tmp_path, monkeypatch):
    """One worker dies once, and another's device fails once, which is repaired; and one architecture kills each worker.

    The latter's batch dies with it as often as it is given out again, and is then tried one by one.
    """
    monkeypatch.setattr(batching, "MAX_LOSSES", 1)
    deadly, on_a_bad_card, *_, unlucky = first_archs(config, 10)
    marker, failed_card = tmp_path / "died", tmp_path / "failed"

    class Mortal(scoring.ScoringTrial):
        def setup(self, config, task_ref=None):
            super().setup(config, task_ref)
            (tmp_path / f"started-{os.getpid()}").touch()

        def _read(self, arch):
            if arch == unlucky and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if arch == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if arch == on_a_bad_card and not failed_card.exists():
                failed_card.write_text(str(os.getpid()))
                raise DeviceError("CUDA error: device-side assert triggered")
            if failed_card.exists() and failed_card.read_text() == str(os.getpid()):
                (tmp_path / "went-on").touch()
            return super()._read(arch)

    rows, _, outcome = run_workers(12, 3, trainable=Mortal)
    failed = [row for row in rows if row.status == "failed"]
    assert marker.exists()
    assert failed_card.exists()
    assert not (tmp_path / "went-on").exists()
    assert len(rows) == 12
    assert [row.arch_id for row in failed] == [config.space.arch_id(deadly)]
    assert failed[0].error.startswith("its worker died again and again")
    started = {path.name.removeprefix("started-") for path in tmp_path.glob("started-*")}
    assert len(started) > 2  # three died at least; who dies with its first batch is in no outcome, having read nothing
    assert {worker.rpartition("/")[2] for worker in outcome.workers} <= started


@pytest.mark.night
def test_a_worker_that_starts_late_holds_nobody(run_workers, tmp_path):
    """One of two takes its time to be set up; the other reads meanwhile, and the late one reads its share."""
    marker = tmp_path / "late"

    class Slow(scoring.ScoringTrial):
        def setup(self, config, task_ref=None):
            try:
                marker.mkdir()
            except FileExistsError:
                self.late = False
            else:
                self.late = True
                time.sleep(8)
            super().setup(config, task_ref)

        def step(self):
            return {**super().step(), "late": self.late}

        def _read(self, arch):
            time.sleep(0.05)
            with (tmp_path / f"{os.getpid()}").open("a") as log:
                log.write(f"{time.time()} {self.late}\n")
            return super()._read(arch)

    rows, _, outcome = run_workers(400, 4, trainable=Slow)
    assert len(rows) == 400
    assert len(outcome.workers) == 2
    stamps = [line.split() for path in tmp_path.glob("[0-9]*") for line in path.read_text().splitlines()]
    late = [float(stamp) for stamp, is_late in stamps if is_late == "True"]
    early = [float(stamp) for stamp, is_late in stamps if is_late == "False"]
    assert min(late) > min(early) + 3  # nobody waited for it
    assert len(late) > 20  # it had its share of what was left


@pytest.fixture
def patient(tmp_path):
    """A worker that reads only once as many have started as a test waits for, a minute at most."""

    class Patient(scoring.ScoringTrial):
        def setup(self, config, task_ref=None):
            super().setup(config, task_ref)
            (tmp_path / f"started-{os.getpid()}").touch()

        def _read(self, arch):
            deadline = time.monotonic() + 60
            while len(list(tmp_path.glob("started-*"))) < 4 and time.monotonic() < deadline:
                time.sleep(0.1)
            return super()._read(arch)

    return Patient


@pytest.mark.night
def test_a_run_spreads_over_what_joins_its_cluster(run_workers, patient, monkeypatch):
    """It knows of one slot when it starts, and the cluster holds four by then."""
    monkeypatch.setattr(scoring, "LOOK_INTERVAL_S", 0.1)
    rows, _, outcome = run_workers(40, 1, trainable=patient, places=slots.Slots(1, 0))
    assert len(rows) == 40
    assert len(outcome.workers) == 4


@pytest.mark.night
def test_a_share_of_a_gpu_runs_four_workers_at_a_time(run_workers, patient):
    """The GPU exists in name only, so its workers compute on the CPU; what is tested is the packing."""
    assert slots.find_slots(None) == slots.find_slots(0.25) == slots.Slots(4, 0.25)
    assert slots.find_slots(0.4) == slots.Slots(2, 0.4)
    assert slots.find_slots(0) == slots.Slots(4, 0)
    rows, _, outcome = run_workers(40, 1, trainable=patient, places=slots.find_slots(0.25))
    assert len(rows) == 40
    assert len(outcome.workers) == 4


@pytest.mark.night
def test_workers_that_cannot_be_set_up_end_the_run_with_the_reason(run_workers):
    class Broken(scoring.ScoringTrial):
        def setup(self, config, task_ref=None):
            raise RuntimeError("this worker was given a GPU, but torch sees none")

    rows, dispatcher, _ = run_workers(6, 2, trainable=Broken)
    assert rows == []
    assert re.match(
        r"\d workers in a row could not be started, the last one: .*torch sees none", dispatcher.stop_reason
    )


@pytest.mark.night
def test_one_node_that_cannot_start_workers_costs_the_others_nothing(run_workers, tmp_path):
    """The first two workers fail in their set-up, whatever the reason; the rest read everything."""

    class Unlucky(scoring.ScoringTrial):
        def setup(self, config, task_ref=None):
            for number in range(2):
                try:
                    (tmp_path / f"failed{number}").mkdir()
                except FileExistsError:
                    continue
                raise RuntimeError("RuntimeEnvSetupError: no space left on device")
            super().setup(config, task_ref)

    rows, dispatcher, _ = run_workers(12, 2, trainable=Unlucky)
    assert len(rows) == 12
    assert {row.status for row in rows} == {"ok"}
    assert dispatcher.stop_reason is None


@pytest.mark.night
@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads the machine's memory from /proc")
def test_what_the_memory_monitor_kills_is_a_row(teacher, tmp_path):
    """On a Ray of its own, whose monitor is told that the node has little memory."""
    command = [sys.executable, "tests/cluster/memory_kill.py", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    killed = "its worker was killed by Ray's memory monitor: the node was running low on memory"
    assert done.stdout.splitlines()[-1] == f"5 [True] {killed}"


def test_a_process_is_left_as_it_was(cluster, config, teacher, tmp_path):
    """Threads, random numbers, environment, loggers and Ray's session, after a search through the Python API."""
    import logging

    import ray
    import torch

    torch.set_num_threads(2)
    before = dict(os.environ), torch.get_num_threads(), torch.random.get_rng_state().tolist()
    levels = {name: logging.getLogger(name).level for name in ("ray", "ray.tune", "ray.train", "optuna", "tvt_ray")}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    settings = {"search": {"num_samples": 6, "searcher": "tpe"}, "cluster": {"scoring_workers": 1}}
    search(variant(config, **settings), run_dir=tmp_path / "run")
    assert (dict(os.environ), torch.get_num_threads(), torch.random.get_rng_state().tolist()) == before
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert ray.is_initialized()
    torch.set_num_threads(1)


def test_an_impossible_number_of_training_workers_is_refused(cluster, config):
    with pytest.raises(UsageError, match=r"cluster.training_workers 9 needs more than the cluster has"):
        slots.allot(variant(config, cluster={"training_workers": 9}).cluster, 1)
