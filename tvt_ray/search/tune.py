"""The search on Ray Tune: reused actors that score, a Searcher that asks and tells, and the run that joins them.

The rows are the truth: they are written as trials end, and what Tune itself remembers of a run is thrown away.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
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
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import FailureConfig, RunConfig, TuneConfig
from ray.tune.search import ConcurrencyLimiter, Searcher

from tvt_ray.errors import RunError, UsageError
from tvt_ray.metrics import record_batch, record_lag
from tvt_ray.progress import Meter
from tvt_ray.search.algorithms import Sampler, objectives
from tvt_ray.search.fusion import Calibration
from tvt_ray.search.roster import Attendance, Roster
from tvt_ray.search.rows import Row
from tvt_ray.search.scorer import Scorer, ScoringTask, make_row
from tvt_ray.search.selection import best_score
from tvt_ray.search.slots import Job, pick_device
from tvt_ray.search.store import RowWriter
from tvt_ray.space import Arch

TRIAL_SECONDS = 4.0  # what a trial should take, against the tens of milliseconds that Ray spends on it
MAX_ARCHS_PER_TRIAL = 64  # so that searchers that learn from results hear of them soon enough
MAX_ARCHS_PER_TASK = 16  # so that what a killed call had scored is not lost
MIN_TRIALS_PER_SLOT = 4  # so that the last trials end at about the same time
MIN_ROWS_TO_JUDGE = 20  # before a share of failures says anything
WATCHDOG_GRACE_S = 10.0
MAX_ACTOR_FAILURES = 3  # a lost worker or node; what an architecture raises is a row, not a failure


def take_memory_kills_for_deaths() -> None:
    """Makes Tune treat an actor that the memory monitor killed like any that died: its trial is tried again.

    Ray raises OutOfMemoryError for it, which is no RayActorError, and on which Tune (seen in 2.60) ends the whole run.
    Idempotent; where Tune's insides have another form, nothing is changed.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    original = getattr(RayActorManager, "_actor_task_failed", None)
    if original is None or hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def task_failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = task_failed


class ScoringTrial(tune.Trainable):  # type: ignore[misc]
    """One trial scores one batch of architectures; the actor, its probe and its scorer serve trial after trial."""

    def setup(self, config: dict[str, Any], task_ref: Any = None, attendance: Any = None, at_first: int = 1) -> None:
        """`task_ref`: a list of one reference, since Ray replaces a bare one by its value. `at_first`: actors."""
        torch.set_num_threads(1)  # actors share the machine's cores
        self.scorer = Scorer(ray.get(task_ref[0]), pick_device())
        self.attendance, self.at_first, self.held = attendance, at_first, 0
        self.worker = f"{ray.get_runtime_context().get_node_id()}/{os.getpid()}"
        self.reset_config(config)

    def step(self) -> dict[str, Any]:
        self.attendance.enter(self.worker, self.trial_id)
        if self.hold > self.held:  # see roster.py
            self.attendance.wait(self.at_first if self.hold == 1 else math.inf)
            self.held = self.hold
        space = self.scorer.task.space
        rows = [self._score(space.from_json(arch)) for arch in json.loads(self.archs)]
        measured = [[row.components, row.error, row.seconds] for row in rows]
        # One string: Tune flattens and copies every nested value of a result. Infinity and NaN never get this far.
        return {"measured": json.dumps(measured), "worker": self.worker, "ended": time.time(), "done": True}

    def _score(self, arch: Arch) -> Row:
        """Ends the process where not even the time limit's alarm ends it: an operation that hangs answers no alarm."""
        limit = self.scorer.task.max_seconds
        if limit is None:
            return self.scorer.score(arch)
        watchdog = threading.Timer(2 * limit + WATCHDOG_GRACE_S, os._exit, [1])
        watchdog.daemon = True
        watchdog.start()
        try:
            return self.scorer.score(arch)
        finally:
            watchdog.cancel()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.archs, self.hold = new_config["archs"], new_config["hold"]
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """A trial holds nothing that its rows do not."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing is kept between trials, so there is nothing to load."""


class RowRecorder:
    """What happens to rows as they arrive: fused, handed to the writer, told to the sampler, counted, shown.

    `calibration` is what scores are on the scale of, and is there before the first row. `stop_reason` is set when the
    run should not go on: too many failures, or rows that cannot be written.
    """

    def __init__(
        self,
        writer: RowWriter,
        calibration: Calibration | None,
        score: str,
        sampler: Sampler,
        num_objectives: int,
        meter: Meter,
        best: float | None = None,
        max_failure_share: float = 1.0,
    ) -> None:
        self.writer, self.calibration, self.score, self.sampler = writer, calibration, score, sampler
        self.num_objectives, self.meter, self.best = num_objectives, meter, best
        self.max_failure_share = max_failure_share
        self.num_rows = 0
        self.began: float | None = None  # time.monotonic() when the first of the rows began to be scored
        self.workers: set[str] = set()  # "node/pid" of each process that scored
        self.errors: Counter[str] = Counter()
        self.stop_reason: str | None = None

    def record(self, archs: Sequence[Arch], rows: Sequence[Row], arrived: float) -> None:
        """Of rows that came at `arrived` (time.monotonic()); they are on disk a moment later (RowWriter)."""
        assert self.calibration is not None
        if self.began is None:
            self.began = arrived - sum(row.seconds for row in rows)
        scored = [row.with_score(self.calibration.fuse(self.score, row)) for row in rows]
        try:
            self.writer.put(scored)
        except (RunError, UsageError) as error:  # the disk takes no more, or a part to merge is damaged
            self.stop_reason = str(error)
            return
        for arch, row in zip(archs, scored, strict=True):
            self.sampler.tell(arch, objectives(row, self.num_objectives))
        self.num_rows += len(scored)
        self.errors.update(row.error for row in scored if row.error)
        self.best = max((best for best in (self.best, best_score(scored)) if best is not None), default=None)
        record_batch((row.seconds if row.status == "ok" else None for row in scored), self.best)
        self.meter.advance(len(scored), self._note())
        self._judge()

    def _note(self) -> str:
        failed = f", {self.errors.total():,} failed" if self.errors else ""
        return (f"best {self.best:.4g}" if self.best is not None else "no score yet") + failed

    def _judge(self) -> None:
        failed = self.errors.total()
        if self.num_rows >= MIN_ROWS_TO_JUDGE and failed > self.max_failure_share * self.num_rows:
            reason, count = self.errors.most_common(1)[0]
            self.stop_reason = (
                f"{failed:,} of {self.num_rows:,} architectures failed, more than search.max_failure_share "
                f"{self.max_failure_share:g} allows; {count:,} with: {reason}"
            )


@dataclass(frozen=True)
class Calibrating:
    """The calibration sample, which the run's own actors score before anything else: they are started once."""

    sample: Sequence[Arch]
    done: Callable[[Sequence[Row]], int]  # told its rows -> architectures per trial from then on


@dataclass(frozen=True)
class Batch:
    """What a trial scores."""

    archs: Sequence[Arch]
    calibrates: bool = False  # of the calibration sample rather than of the search


class Forgotten:
    """What Tuner pickles for a restore that never happens: the rows are what a run resumes from."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class BatchSearcher(Forgotten, Searcher):  # type: ignore[misc]
    """Tune's Searcher over a Sampler: suggests batches, and records the rows of trials that end.

    A batch whose worker died too often is split and its architectures are tried one by one, so that only the one that
    kills workers fails. With `calibrating`, its sample comes first. Rows of the search that are there before the last
    of the sample's wait for it, actors do not: Tune ends one that finds no trial, and a process is seconds of work.
    """

    def __init__(
        self,
        task: ScoringTask,
        recorder: RowRecorder,
        roster: Roster,
        batch_size: int,
        total: int,
        calibrating: Calibrating | None = None,
    ) -> None:
        super().__init__()
        self.task, self.recorder, self.roster, self.batch_size, self.left = task, recorder, roster, batch_size, total
        self.deaths: dict[str, str] = {}  # trial -> why its worker died, as far as is known
        self._pending: dict[str, Batch] = {}
        self._singly: deque[Batch] = deque()
        self._calibrating, self._calibration_rows = calibrating, list[Row]()
        self._sample = deque(calibrating.sample if calibrating else ())
        # What waits for the calibration: architectures, rows, when they arrived and when their worker ended.
        self._arrived: list[tuple[Sequence[Arch], Sequence[Row], float, float | None]] = []

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The batches are the whole search space; Tune's own is empty."""
        return not config

    def suggest(self, trial_id: str) -> Any:
        if self.recorder.stop_reason:
            return Searcher.FINISHED
        batch = self._next_batch()
        if not batch.archs:
            may_split = any(len(batch.archs) > 1 for batch in self._pending.values())
            return None if may_split else Searcher.FINISHED
        self._pending[trial_id] = batch
        # Near the end nobody is waited for who would come too late.
        many_left = self.left > MIN_TRIALS_PER_SLOT * self.batch_size * self.roster.room
        return {
            "archs": json.dumps([self.task.space.to_json(arch) for arch in batch.archs]),
            "hold": self.roster.hold(many_left),
        }

    def _next_batch(self) -> Batch:
        if self._singly:
            return self._singly.popleft()
        if self._sample:
            count = min(self.batch_size, len(self._sample))
            return Batch([self._sample.popleft() for _ in range(count)], calibrates=True)
        return Batch(self._ask())

    def _ask(self) -> list[Arch]:
        """A batch, smaller and smaller near the end, where a slot would otherwise wait for another's long trial."""
        share = math.ceil(self.left / (2 * self.roster.room))
        archs: list[Arch] = []
        while len(archs) < min(self.batch_size, share):
            arch = self.recorder.sampler.ask()
            if arch is None:
                self.left = len(archs)
                break
            archs.append(arch)
        self.left -= len(archs)
        return archs

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial reports once, when it is complete."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        batch = self._pending.pop(trial_id, None)
        if batch is None:
            return
        death = self.deaths.pop(trial_id, "")
        if not error and result and "measured" in result:
            measured = json.loads(result["measured"])
            self.recorder.workers.add(result["worker"])
            self.roster.begin()
        elif len(batch.archs) > 1:
            self._singly.extend(Batch([arch], batch.calibrates) for arch in batch.archs)
            return
        else:
            measured = [[{}, death or "its worker could not be started, or died, more often than it is restarted", 0.0]]
        rows = [make_row(self.task, arch, *entry) for arch, entry in zip(batch.archs, measured, strict=True)]
        if batch.calibrates:
            self._calibrate(rows)
        else:
            self._arrived.append((batch.archs, rows, time.monotonic(), (result or {}).get("ended")))
        if self._calibrating is None:
            self._record()

    def _record(self) -> None:
        while self._arrived:
            archs, rows, arrived, ended = self._arrived.pop(0)
            self.recorder.record(archs, rows, arrived)
            record_lag(ended)

    def _calibrate(self, rows: Sequence[Row]) -> None:
        assert self._calibrating is not None
        self._calibration_rows += rows
        self.recorder.meter.advance(len(rows))
        sample = [self.task.space.arch_id(arch) for arch in self._calibrating.sample]
        if len(self._calibration_rows) < len(sample):
            return
        by_id = {row.arch_id: row for row in self._calibration_rows}
        try:
            self.batch_size = self._calibrating.done([by_id[arch_id] for arch_id in sample])
        except (RunError, UsageError) as error:  # none could be scored, or they cannot be written
            self.recorder.stop_reason = str(error)
            return
        self._calibrating = None

    def save(self, checkpoint_path: str) -> None:
        """The rows are what a run resumes from."""

    def restore(self, checkpoint_path: str) -> None:
        """The rows are what a run resumes from."""


class Limiter(Forgotten, ConcurrencyLimiter):  # type: ignore[misc]
    """Lets as many trials run as the cluster holds by now, and as many wait, which start on what joins it."""

    def __init__(self, searcher: BatchSearcher) -> None:
        self.roster = searcher.roster
        super().__init__(searcher, max_concurrent=self._allowed())

    def _allowed(self) -> int:
        return self.roster.slots.limit or 2 * self.roster.room

    def suggest(self, trial_id: str) -> Any:
        self.max_concurrent = self._allowed()
        return super().suggest(trial_id)


class DeathNotes(Forgotten, tune.Callback):  # type: ignore[misc]
    """Tells the searcher why a trial's worker died; Tune tells its callbacks, but not its searchers."""

    def __init__(self, searcher: BatchSearcher) -> None:
        self.searcher = searcher

    def on_trial_recover(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        self.searcher.roster.note_death(trial.trial_id)
        self.searcher.deaths[trial.trial_id] = explain_death(_last_failure(trial.error_file))

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        """What Tune goes on to ask a dead worker for raises, where it was the memory monitor that killed it."""
        self.searcher.roster.note_death(trial.trial_id)
        trial._default_result_or_future = None


def _last_failure(file: str | None) -> str:
    """The latest of the failures that Tune has written down for a trial."""
    try:
        return Path(file or "").read_text().rpartition("Failure #")[2]
    except OSError:
        return ""


def explain_death(text: str) -> str:
    """One line of what Ray says of a dead worker."""
    if "OutOfMemoryError" in text or "low on memory" in text:
        return "its worker was killed by Ray's memory monitor: the node was running low on memory"
    if "node" in text and "died" in text and "was terminated" in text:
        return "its worker's node was lost"
    return "its worker died more often than it is restarted (killed, crashed, or hung beyond the time limit)"


@ray.remote  # type: ignore[untyped-decorator]
def _score_chunk(task: ScoringTask, archs: Sequence[Mapping[str, Any]]) -> list[Row]:
    torch.set_num_threads(1)
    return Scorer(task, pick_device()).score_all([task.space.from_json(arch) for arch in archs])


def score_archs(
    job: Job,
    archs: Sequence[Arch],
    title: str = "calibrating",
    on_rows: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Scores a given list of architectures on all slots, as plain Ray tasks: their rows, in the list's order.

    `on_rows` hears of rows as they arrive, in the order in which they do.
    """
    space, slots = job.task.space, job.slots
    size = spread(len(archs), slots.count)
    chunks = [[space.to_json(a) for a in archs[i : i + size]] for i in range(0, len(archs), size)]
    remote = _score_chunk.options(num_cpus=1, num_gpus=slots.gpus_each)
    waiting, running = deque(enumerate(chunks)), dict[Any, int]()
    rows: dict[int, list[Row]] = {}
    with Meter(title, len(archs), "architectures") as meter:
        while waiting or running:
            while waiting and len(running) < slots.count:
                number, chunk = waiting.popleft()
                running[remote.remote(job.task_ref, chunk)] = number
            for ref in ray.wait(list(running))[0]:
                number = running.pop(ref)
                rows[number] = ray.get(ref)
                on_rows(rows[number])
                meter.advance(len(rows[number]))
    return [row for number in sorted(rows) for row in rows[number]]


def spread(count: int, slots: int) -> int:
    """Architectures at a time, of `count` whose cost is not known yet, that keep all slots busy to the end."""
    return min(math.ceil(count / (MIN_TRIALS_PER_SLOT * slots)), MAX_ARCHS_PER_TASK)


def pick_batch_size(wanted: int | None, seconds_each: float, total: int, slots: int) -> int:
    """Architectures per trial: as asked for, or as many as take TRIAL_SECONDS without starving a slot at the end."""
    if wanted is not None:
        return wanted
    by_time = round(TRIAL_SECONDS / max(seconds_each, 1e-6))
    return max(1, min(by_time, MAX_ARCHS_PER_TRIAL, total // (slots * MIN_TRIALS_PER_SLOT)))


def run_trials(
    job: Job,
    recorder: RowRecorder,
    total: int,
    batch_size: int,
    calibrating: Calibrating | None = None,
) -> int:
    """Scores up to `total` architectures as Tune trials, after the calibration sample if there is one.

    Ends early when the sampler has no more, or the recorder a reason to stop. `batch_size`: architectures per trial, of
    the sample where there is one. Gives those per trial at the end.
    """
    take_memory_kills_for_deaths()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a traceback for each dead worker; rows say what happened
    slots = job.slots
    first = len(calibrating.sample) if calibrating else total
    attendance = Attendance(uuid.uuid4().hex, slots)
    at_first = min(slots.count, math.ceil(first / batch_size))
    parameters = {"task_ref": [job.task_ref], "attendance": attendance, "at_first": at_first}
    trainable = tune.with_resources(tune.with_parameters(ScoringTrial, **parameters), slots.resources)
    trainable.__qualname__ = ScoringTrial.__qualname__  # what the dashboard calls its actors
    searcher = BatchSearcher(job.task, recorder, Roster(attendance), batch_size, total, calibrating)
    with tempfile.TemporaryDirectory(prefix="tvt_ray-") as scratch:  # for what Tune itself wants to remember
        tuner = tune.Tuner(
            trainable,
            tune_config=TuneConfig(
                search_alg=Limiter(searcher),
                num_samples=2 * (first + total),  # more than there will be: a batch may be split into its architectures
                reuse_actors=True,
            ),
            run_config=RunConfig(
                storage_path=scratch,
                name="tune",
                verbose=0,
                failure_config=FailureConfig(max_failures=MAX_ACTOR_FAILURES),
                callbacks=[DeathNotes(searcher)],
            ),
        )
        tuner.fit()
    attendance.clear()
    return searcher.batch_size
