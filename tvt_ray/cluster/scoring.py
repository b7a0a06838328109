"""The search on Ray Tune: a trial is a worker that lives as long as it can, and reads batch after batch.

`cluster.trial: architecture` makes each architecture a trial of its own instead (`ArchitectureSearcher`).

Each batch is a result, of which Tune and the Searcher hear; the next batch is sent to the worker before Tune lets it go
on. Who reads what is decided by a Dispatcher (searchers/batching.py). Trials that wait for room are what an autoscaler
sees, and what a node that joins is used by. The rows are the truth: what Tune itself remembers is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig
from ray.tune.search import Searcher

from tvt_ray.cluster import ray_patches
from tvt_ray.cluster.connection import quiet, signals_kept
from tvt_ray.cluster.metrics import record_lag
from tvt_ray.cluster.slots import Job, Slots, pick_device
from tvt_ray.plugins import load_plugins
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.rows import Row
from tvt_ray.searchers.batching import Dispatcher
from tvt_ray.vits import Arch

WATCHDOG_GRACE_S = 10.0
IDLE_S = 0.5  # that a worker without work waits before it asks again; longer where there are hundreds
LOOK_INTERVAL_S = 3.0  # between looks at how many workers the cluster holds
MAX_GATE_S = 20.0  # that trials of an architecture wait for each other at their start

# Tune reads these when a run starts: no loggers, no state snapshots, as many trials in waiting as we suggest, and no
# ten minutes of patience with a worker that does not end.
TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class ScoringTrial(tune.Trainable):  # type: ignore[misc]
    """A worker. Its first result says that it is there; after that, each is what became of a batch."""

    def setup(self, config: dict[str, Any], task_ref: Any = None) -> None:
        """`task_ref`: a list of one reference, since Ray replaces a bare one by its value."""
        torch.set_num_threads(1)  # workers share the machine's cores
        task = ray.get(task_ref[0])
        load_plugins(task.plugins)
        self.reader = Reader(task, pick_device())
        self.worker = f"{ray.get_runtime_context().get_node_id()}/{os.getpid()}"
        self._archs: Sequence[Any] | None = None
        self._idle_s = 0.0

    def take(self, archs: Sequence[Any] | None, idle_s: float) -> None:
        """What the next step reads, as JSON; None: nothing, and the step lasts for `idle_s` instead."""
        self._archs, self._idle_s = archs, idle_s

    def step(self) -> dict[str, Any]:
        """Reads a batch; without one, waits a little."""
        archs, self._archs = self._archs, None
        if archs is None:
            time.sleep(self._idle_s)
            return {"worker": self.worker}
        space = self.reader.task.space
        rows = [self._read(space.from_json(arch)) for arch in archs]
        # A tuple: Tune flattens and copies nested dicts and lists of a result, value by value.
        measured = tuple((row.readings, row.error, row.seconds, row.device) for row in rows)
        return {"worker": self.worker, "measured": measured, "ended": time.time()}

    def _read(self, arch: Arch) -> Row:
        """Ends the process where not even the time limit's alarm ends it: an operation that hangs answers no alarm."""
        limit = self.reader.task.max_seconds
        if limit is None:
            return self.reader.read(arch)
        watchdog = threading.Timer(2 * limit + WATCHDOG_GRACE_S, os._exit, [1])
        watchdog.daemon = True
        watchdog.start()
        try:
            return self.reader.read(arch)
        finally:
            watchdog.cancel()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """A worker holds nothing that its results do not."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing is kept, so there is nothing to load."""


class Gate:
    """Lets the first trials begin together: a trial that ends early would take over a worker that is still starting."""

    def __init__(self, count: int) -> None:
        self._missing, self._open = count, asyncio.Event()

    async def wait(self) -> None:
        """Until so many wait, or MAX_GATE_S."""
        self._missing -= 1
        if self._missing <= 0:
            self._open.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._open.wait(), MAX_GATE_S)
        self._open.set()


class ArchitectureTrial(ScoringTrial):
    """A trial of one architecture, which is its config: one result, with what it read and, for Tune's users, by name.

    The process goes on to the next trial (`reuse_actors`).
    """

    def setup(self, config: dict[str, Any], task_ref: Any = None, gate: Any = None) -> None:
        """`gate`: a list of one, which the first trial of this process waits at."""
        super().setup(config, task_ref)
        ray.get(gate[0].wait.remote())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Nothing is left of the architecture before."""
        return True

    def step(self) -> dict[str, Any]:
        """The only one."""
        self.take([self.config], 0.0)
        result = super().step()
        ((readings, _, _, _),) = result["measured"]
        return {**readings, **result, "done": True}


class _KeptByNoOne:
    """Tuner pickles what it is given for a restore that never happens: of these, nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class WorkerSearcher(_KeptByNoOne, Searcher):  # type: ignore[misc]
    """Tune's Searcher: suggests workers, as many as the cluster holds and as many again that wait for room."""

    def __init__(self, dispatcher: Dispatcher, slots: Slots) -> None:
        super().__init__()
        self.dispatcher, self.slots = dispatcher, slots
        self.alive: set[str] = set()  # trials that run or wait
        self.workers: set[str] = set()  # "node/pid" of each process that read something
        self._room, self._next_look, self._next_start = slots.count, time.monotonic() + LOOK_INTERVAL_S, 0.0
        self._leaving, self._next_leaving = frozenset[str](), 0.0

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune's own search space is empty."""
        return not config

    def suggest(self, trial_id: str) -> Any:
        """A new worker, unless there are enough, nothing is left to read, or starting them keeps failing."""
        enough = len(self.alive) >= self._allowed() or not self.dispatcher.has_work
        if enough or self.dispatcher.over or time.monotonic() < self._next_start:
            return None
        self.alive.add(trial_id)
        return {"trial": trial_id}

    def _allowed(self) -> int:
        """As many wait as run. A run that may take so many and no more has none in waiting."""
        if self.slots.limit:
            return self.slots.limit
        if time.monotonic() >= self._next_look:
            self._room, self._next_look = self.slots.available(), time.monotonic() + LOOK_INTERVAL_S
        return 2 * self._room

    def leaves(self, worker: str) -> bool:
        """Whether the node of a "node/pid" was announced to go: what it would be given now might be lost with it."""
        if time.monotonic() >= self._next_leaving:
            self._next_leaving = time.monotonic() + LOOK_INTERVAL_S
            self._leaving = ray_patches.leaving_nodes(time.time())
        return worker.partition("/")[0] in self._leaving

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """What became of a batch: its rows, and what the sampler that proposed them hears of it."""
        if "measured" in result:
            self.workers.add(result["worker"])
            self.dispatcher.done(trial_id, result["measured"])
            record_lag(result["ended"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Why it ended is not said here, but to WorkerCallback."""
        self.alive.discard(trial_id)

    def note_loss(self, trial_id: str, reason: str) -> None:
        """A worker died, or never came to life: its batch is given out again, and the next start may wait."""
        self.dispatcher.lost(trial_id, reason)
        self._next_start = time.monotonic() + self.dispatcher.backoff_s()

    def save(self, checkpoint_path: str) -> None:
        """The rows are what a run resumes from."""

    def restore(self, checkpoint_path: str) -> None:
        """The rows are what a run resumes from."""


class ArchitectureSearcher(WorkerSearcher):
    """Tune's Searcher where each trial is an architecture: what the dispatcher deals out, one at a time."""

    def suggest(self, trial_id: str) -> Any:
        """The next architecture; to Tune, what was chosen."""
        if len(self.alive) >= self._allowed() or self.dispatcher.over or time.monotonic() < self._next_start:
            return None
        batch = self.dispatcher.next(trial_id, at_work=False)
        if batch is None:
            self.dispatcher.gone(trial_id)
            return None
        self.alive.add(trial_id)
        (arch,) = batch.archs
        return self.dispatcher.task.space.to_json(arch)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """With its only result, unless its worker died."""
        if result is not None and not error:
            self.on_trial_result(trial_id, result)
            self.dispatcher.gone(trial_id)
        super().on_trial_complete(trial_id, result, error)


class LossCallback(_KeptByNoOne, tune.Callback):  # type: ignore[misc]
    """Says of workers that died why."""

    def __init__(self, searcher: WorkerSearcher) -> None:
        self.searcher = searcher

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        """A trial that has no worker any more; another takes its place."""
        self.searcher.note_loss(trial.trial_id, explain_death(trial.error_file))
        ray_patches.forget_last_result(trial)


class WorkerCallback(LossCallback):  # type: ignore[misc]
    """Sends each worker its next batch, too."""

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called after the searcher was, and before Tune lets the worker go on."""
        dispatcher = self.searcher.dispatcher
        leaves, space = self.searcher.leaves(result["worker"]), dispatcher.task.space
        batch = dispatcher.rest(trial.trial_id) if leaves else dispatcher.next(trial.trial_id)
        archs = None if batch is None else [space.to_json(arch) for arch in batch.archs]
        ray_patches.actor_of(trial).take.remote(archs, max(IDLE_S, dispatcher.num_workers / 200))


class AllRead(_KeptByNoOne, tune.Stopper):  # type: ignore[misc]
    """Ends the experiment, trials in waiting included, when the dispatcher is through."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A worker without work waits: it may have to take a dead one's."""
        return False

    def stop_all(self) -> bool:
        """Whether the run is over; Tune asks after every event."""
        return self.dispatcher.over


# An exception's name and what it says, as tracebacks end; how Ray speaks of a process that is gone is none of those.
_GONE = "ActorDiedError|ActorUnavailableError|RayActorError|WorkerCrashedError"
_RAISED = re.compile(rf"(?!.*({_GONE}))[\w.]*(Error|Exception|Removed)\b.*: ")


def explain_death(error_file: str | None) -> str:
    """One line of what Ray says of a dead worker, in the latest failure that Tune has written down for its trial."""
    try:
        text = Path(error_file or "").read_text().rpartition("Failure #")[2]
    except OSError:
        text = ""
    if "ray.exceptions.OutOfMemoryError" in text or "low on memory" in text:  # and not torch's
        return "its worker was killed by Ray's memory monitor: the node was running low on memory"
    if found := re.search(r"DeviceError: (.*)", text):
        return f"its worker's device failed: {found[1][:300]}"
    if "node" in text and "died" in text and "was terminated" in text:
        return "its worker's node was lost"
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    said = [line for line in lines if _RAISED.match(line)]  # of a traceback, or of Ray: the last says most
    if said:
        return f"its worker could not be started: {said[-1][:300]}"
    return "its worker died again and again (killed, crashed, or hung beyond the time limit)"


@dataclass(frozen=True)
class Outcome:
    """Which workers a run had."""

    workers: frozenset[str] = frozenset()  # "node/pid" of each process that read something

    @property
    def num_nodes(self) -> int:
        """On how many nodes they were."""
        return len({worker.partition("/")[0] for worker in self.workers})


def run_workers(job: Job, dispatcher: Dispatcher) -> Outcome:
    """Reads all that the dispatcher deals out; returns when it is through, or has a reason to stop, or on Ctrl-C."""
    searcher = WorkerSearcher(dispatcher, job.slots)
    return _run(ScoringTrial, searcher, WorkerCallback(searcher), task_ref=[job.task_ref])


def run_architectures(job: Job, dispatcher: Dispatcher) -> Outcome:
    """The same, each architecture a trial of its own. The dispatcher's batches are of one each."""
    searcher = ArchitectureSearcher(dispatcher, job.slots)
    gate = ray.remote(num_cpus=0)(Gate).remote(job.slots.count)
    return _run(ArchitectureTrial, searcher, LossCallback(searcher), task_ref=[job.task_ref], gate=[gate])


def _run(kind: type[ScoringTrial], searcher: WorkerSearcher, callback: LossCallback, **parameters: Any) -> Outcome:
    trainable = tune.with_parameters(kind, **parameters)
    trainable = tune.with_resources(trainable, searcher.slots.resources)
    trainable.__qualname__ = kind.__qualname__  # what the dashboard calls its actors
    with (
        quiet({"ray.tune": logging.CRITICAL}, TUNE_SETTINGS),  # it logs a traceback for each dead worker
        ray_patches.all_deaths_are_actor_errors(),
        signals_kept(),
        tempfile.TemporaryDirectory(prefix="tvt-") as scratch,
    ):
        tuner = tune.Tuner(
            trainable,
            tune_config=TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=kind is ArchitectureTrial),
            run_config=RunConfig(
                storage_path=scratch,
                name="workers",
                verbose=0,
                stop=AllRead(searcher.dispatcher),
                failure_config=FailureConfig(max_failures=0),  # a dead worker's place is taken by another trial
                callbacks=[callback],
            ),
        )
        tuner.fit()
    return Outcome(frozenset(searcher.workers))
