"""The search on Ray Tune: reused actors that score, a Searcher that asks and tells, and the run that joins them.

The rows are the truth: they are written as trials end, and what Tune itself remembers of a run is thrown away.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Tune reads these when it is imported or started: no loggers and no state snapshots for thousands of short trials.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
import torch
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig
from ray.tune.search import Searcher

from tvt_ray.progress import Meter
from tvt_ray.search.algorithms import Sampler, objectives
from tvt_ray.search.fusion import Calibration
from tvt_ray.search.rows import Row
from tvt_ray.search.scorer import Scorer, ScoringTask, make_row
from tvt_ray.search.selection import best_score
from tvt_ray.search.store import RowStore
from tvt_ray.space import Arch, Space

TRIAL_SECONDS = 1.0  # what a trial should take, against the tens of milliseconds that Ray spends on it
MAX_ARCHS_PER_TRIAL = 64
MAX_ARCHS_PER_TASK = 16  # so that what a killed call had scored is not lost
MIN_TRIALS_PER_SLOT = 4  # so that the last trials end at about the same time
BARRIER_TIMEOUT_S = 60.0
MAX_ACTOR_FAILURES = 3  # a lost worker or node; what an architecture raises is a row, not a failure


@dataclass(frozen=True)
class Slots:
    """How many scoring actors run at a time, and what each takes."""

    count: int
    gpus_each: float  # 0: on the CPU
    fill_cluster: bool = True  # no room is left for another

    @property
    def resources(self) -> dict[str, float]:
        return {"cpu": 1, "gpu": self.gpus_each} if self.gpus_each else {"cpu": 1}


def find_slots(gpus_per_trial: float | None, limit: int | None = None) -> Slots:
    """Packs the connected cluster, with at most `limit` actors.

    A fraction counts per GPU, since no actor straddles two; None is 0.25 of a GPU.
    """
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0)
    share = 0.25 if gpus_per_trial is None else gpus_per_trial
    if not gpus or not share:
        fitting, share = cpus, 0
    else:
        fitting = min(int(gpus) * math.floor(1 / share + 1e-6) if share <= 1 else int(gpus / share), cpus)
    return Slots(max(min(fitting, limit or fitting), 1), share, limit is None or limit >= fitting)


def pick_device() -> torch.device:
    """Ray shows an actor the GPUs it was given and no others."""
    return torch.device("cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu")


@ray.remote(num_cpus=0)
class StartBarrier:
    """Holds first steps back until all actors are set up.

    Otherwise the first actor to start takes over the short trials meant for the others, and Tune drops those while
    they are still starting: the run would stay on one process.
    """

    def __init__(self, expected: int) -> None:
        self.expected, self.arrived = expected, 0

    def arrive(self) -> None:
        self.arrived += 1

    def is_open(self) -> bool:
        return self.arrived >= self.expected


class ScoringTrial(tune.Trainable):  # type: ignore[misc]
    """One trial scores one batch of architectures; the actor, its probe and its scorer serve trial after trial."""

    def setup(self, config: dict[str, Any], task_ref: Any = None, barrier: Any = None) -> None:
        """`task_ref`: a list of one reference, since Ray replaces a bare one by its value."""
        torch.set_num_threads(1)  # actors share the machine's cores
        self.scorer, self.barrier = Scorer(ray.get(task_ref[0]), pick_device()), barrier
        self.archs = config["archs"]
        ray.get(barrier.arrive.remote())

    def step(self) -> dict[str, Any]:
        if self.barrier is not None:
            self._wait_for_others()
        space = self.scorer.task.space
        rows = self.scorer.score_all([space.from_json(arch) for arch in json.loads(self.archs)])
        measured = [[row.components, row.error, row.seconds] for row in rows]
        # One string: Tune flattens and copies every nested value of a result. Infinity and NaN never get this far.
        return {"measured": json.dumps(measured), "pid": os.getpid(), "done": True}

    def _wait_for_others(self) -> None:
        deadline = time.monotonic() + BARRIER_TIMEOUT_S
        while time.monotonic() < deadline and not ray.get(self.barrier.is_open.remote()):
            time.sleep(0.05)
        self.barrier = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.archs = new_config["archs"]
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """A trial holds nothing that its rows do not."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing is kept between trials, so there is nothing to load."""


class RowRecorder:
    """What happens to rows as they arrive: fused, stored, told to the sampler, shown."""

    def __init__(
        self,
        store: RowStore,
        calibration: Calibration,
        score: str,
        sampler: Sampler,
        num_objectives: int,
        meter: Meter,
        best: float | None,
    ) -> None:
        self.store, self.calibration, self.score, self.sampler = store, calibration, score, sampler
        self.num_objectives, self.meter, self.best, self.rows = num_objectives, meter, best, list[Row]()
        self.pids: set[int] = set()

    def record(self, archs: Sequence[Arch], rows: Sequence[Row]) -> None:
        """On return the rows are on disk."""
        scored = [row.with_score(self.calibration.fuse(self.score, row)) for row in rows]
        self.store.append(scored)
        self.rows.extend(scored)
        for arch, row in zip(archs, scored, strict=True):
            self.sampler.tell(arch, objectives(row, self.num_objectives))
        self.best = max((best for best in (self.best, best_score(scored)) if best is not None), default=None)
        self.meter.advance(len(scored), f"best {self.best:.4g}" if self.best is not None else "")


class BatchSearcher(Searcher):  # type: ignore[misc]
    """Tune's Searcher over a Sampler: suggests batches, and records the rows of trials that end."""

    def __init__(self, task: ScoringTask, recorder: RowRecorder, batch_size: int, total: int) -> None:
        super().__init__()
        self.task, self.recorder, self.batch_size, self.left = task, recorder, batch_size, total
        self._pending: dict[str, list[Arch]] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The batches are the whole search space; Tune's own is empty."""
        return not config

    def suggest(self, trial_id: str) -> Any:
        archs: list[Arch] = []
        while len(archs) < min(self.batch_size, self.left):
            arch = self.recorder.sampler.ask()
            if arch is None:
                self.left = len(archs)
                break
            archs.append(arch)
        if not archs:
            return Searcher.FINISHED
        self.left -= len(archs)
        self._pending[trial_id] = archs
        return {"archs": json.dumps([self.task.space.to_json(arch) for arch in archs])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial reports once, when it is complete."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        archs = self._pending.pop(trial_id, None)
        if archs is None:
            return
        if error or not result or "measured" not in result:
            reason = (
                "its worker could not be started, or died (out of memory, node lost) more often than it is restarted"
            )
            measured: list[Any] = [[{}, reason, 0.0] for _ in archs]
        else:
            measured = json.loads(result["measured"])
            self.recorder.pids.add(int(result["pid"]))
        rows = [make_row(self.task, arch, *entry) for arch, entry in zip(archs, measured, strict=True)]
        self.recorder.record(archs, rows)

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles its searcher for a restore that never happens: the rows are what a run resumes from."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """The rows are what a run resumes from."""

    def restore(self, checkpoint_path: str) -> None:
        """The rows are what a run resumes from."""


@ray.remote  # type: ignore[untyped-decorator]
def _score_chunk(task: ScoringTask, archs: Sequence[Mapping[str, Any]]) -> list[Row]:
    torch.set_num_threads(1)
    return Scorer(task, pick_device()).score_all([task.space.from_json(arch) for arch in archs])


def score_archs(
    task_ref: Any,
    space: Space,
    archs: Sequence[Arch],
    slots: Slots,
    title: str = "calibrating",
    on_rows: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Scores a given list of architectures on all slots, as plain Ray tasks: their rows, in the list's order.

    `on_rows` hears of rows as they arrive, in the order in which they do.
    """
    size = math.ceil(len(archs) / (4 * slots.count))
    size = min(size, MAX_ARCHS_PER_TASK)
    chunks = [[space.to_json(a) for a in archs[i : i + size]] for i in range(0, len(archs), size)]
    remote = _score_chunk.options(num_cpus=1, num_gpus=slots.gpus_each)
    waiting, running = deque(enumerate(chunks)), dict[Any, int]()
    rows: dict[int, list[Row]] = {}
    with Meter(title, len(archs), "architectures") as meter:
        while waiting or running:
            while waiting and len(running) < slots.count:
                number, chunk = waiting.popleft()
                running[remote.remote(task_ref, chunk)] = number
            for ref in ray.wait(list(running))[0]:
                number = running.pop(ref)
                rows[number] = ray.get(ref)
                on_rows(rows[number])
                meter.advance(len(rows[number]))
    return [row for number in sorted(rows) for row in rows[number]]


def pick_batch_size(wanted: int | None, seconds_each: float, total: int, slots: int) -> int:
    """Architectures per trial: as asked for, or as many as fill about a second without starving a slot at the end."""
    if wanted is not None:
        return wanted
    by_time = round(TRIAL_SECONDS / max(seconds_each, 1e-6))
    return max(1, min(by_time, MAX_ARCHS_PER_TRIAL, total // (slots * MIN_TRIALS_PER_SLOT)))


def run_trials(
    task_ref: Any, task: ScoringTask, recorder: RowRecorder, total: int, slots: Slots, batch_size: int, scratch: Path
) -> None:
    """Scores up to `total` architectures as Tune trials of `batch_size`. Returns early when the sampler has no more.

    `scratch` is a folder for Tune's own files; it is emptied before and removed after.
    """
    num_trials = math.ceil(total / batch_size)
    barrier = StartBarrier.remote(min(slots.count, num_trials))  # type: ignore[attr-defined]
    trainable = tune.with_resources(
        tune.with_parameters(ScoringTrial, task_ref=[task_ref], barrier=barrier), slots.resources
    )
    shutil.rmtree(scratch, ignore_errors=True)
    tuner = tune.Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=BatchSearcher(task, recorder, batch_size, total),
            num_samples=num_trials,
            # In a full cluster the next trial waits while this one runs; elsewhere it would start a further actor.
            max_concurrent_trials=(2 if slots.fill_cluster else 1) * slots.count,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            storage_path=str(scratch.resolve()),
            name="tune",
            verbose=0,
            failure_config=FailureConfig(max_failures=MAX_ACTOR_FAILURES),
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
