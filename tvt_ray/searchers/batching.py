"""Who reads what next: batches for workers that come, die and are replaced. Plain code; cluster/ does what it decides.

A worker is known from its first word on, and takes batch after batch. What a dead one had is given out again; if it is
lost again and again, its architectures are tried one by one, so that only the one that kills workers fails.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvt_ray.errors import RunError, UsageError
from tvt_ray.proxies import Readings
from tvt_ray.scoring.reader import ReadingTask, make_row
from tvt_ray.scoring.rows import Row
from tvt_ray.searchers.recorder import Recorder
from tvt_ray.vits import Arch

BATCH_SECONDS = 4.0  # what a batch should take, against the milliseconds that Ray spends on it
LEAST_SECONDS = 0.2  # of a batch near the end, for which others may have to wait
MAX_BATCH = 64  # so that searchers that learn from results hear of them soon enough
MAX_LOSSES = 2  # of one batch: its worker may have died of something else
MAX_FAILED_STARTS = 3  # of workers in a row, while none is at work
MAX_BACKOFF_S = 60.0  # between starts where they keep failing

# What a worker says of an architecture: its readings, or the error; the seconds that it took; and its device's name.
Measured = tuple[Readings, str | None, float, str]


@dataclass(frozen=True)
class Batch:
    """What a worker is given to read."""

    archs: tuple[Arch, ...]
    calibrates: bool = False  # of the calibration sample rather than of the search
    losses: int = 0  # workers that died with it


@dataclass(frozen=True)
class Calibrating:
    """The calibration sample, which the run's own workers read before anything else."""

    sample: Sequence[Arch]
    done: Callable[[Sequence[Row]], None]  # told its rows, in the sample's order; may raise RunError or UsageError


class Dispatcher:
    """Deals out a run's work: the calibration sample, then `total` new architectures, to whoever asks."""

    def __init__(
        self,
        task: ReadingTask,
        recorder: Recorder,
        total: int,
        batch_size: int | None = None,
        calibrating: Calibrating | None = None,
        on_read: Callable[[int], None] = lambda count: None,
        again: Sequence[Arch] = (),
    ) -> None:
        """`batch_size`: architectures at a time; None: as many as take about BATCH_SECONDS. `again`: architectures that
        an earlier run could not read, for no fault of theirs; each is a batch of its own, beside the `total`.

        `on_read` hears how many were read with each batch, those of the sample included.
        """
        self.task, self.recorder, self.left, self.batch_size = task, recorder, total, batch_size
        self._calibrating, self._sample_rows, self._on_read = calibrating, dict[str, Row](), on_read
        self._began: float | None = None  # time.perf_counter() at the first worker's first word
        self.seconds = 0.0  # from then to the last batch that came back
        self._sample = deque(calibrating.sample if calibrating else ())
        self._again = deque(Batch((arch,)) for arch in again)  # and what dead workers had
        self._pending: dict[str, Batch | None] = {}  # by worker; None: it waits
        self._pace: dict[str, float] = {}  # seconds an architecture, of each worker's last batch
        self.num_failed_starts = 0  # in a row
        self.num_read, self.seconds_reading = 0, 0.0  # architectures, and what workers spent on them

    @property
    def stop_reason(self) -> str | None:
        """Why the run should end before its time."""
        return self.recorder.stop_reason

    @property
    def num_workers(self) -> int:
        """Workers that have come and not died."""
        return len(self._pending)

    @property
    def has_work(self) -> bool:
        """Whether another worker would find something to do."""
        return bool(self.left or self._again or self._sample)

    @property
    def over(self) -> bool:
        """Whether everything was read that will be."""
        return self._ended or not (self.has_work or any(self._pending.values()))

    @property
    def _ended(self) -> bool:
        """Whether nothing more is to be read, whatever is left."""
        return bool(self.stop_reason or self.recorder.end_reason)

    def stop(self, reason: str) -> None:
        """Ends the run at once; rows that arrived are kept."""
        self.recorder.stop(reason)

    def next(self, worker: str, at_work: bool = True) -> Batch | None:
        """What a worker that has nothing to do should read; None: nothing for now. `at_work`: it has started."""
        if at_work:
            self._hear()
        self._pending.setdefault(worker, None)
        batch = self._pending[worker]
        if batch is None and not self._ended:
            batch = self._pending[worker] = self._deal(worker)
        return batch

    def _hear(self) -> None:
        """A worker has said something."""
        self.num_failed_starts = 0
        self._began = self._began or time.perf_counter()

    def _deal(self, worker: str) -> Batch | None:
        if self._again:
            return self._again.popleft()
        count = self._count_for(worker)
        if self._sample:
            count = min(count, math.ceil(len(self._sample) / (2 * self.num_workers)))
            return Batch(tuple(self._sample.popleft() for _ in range(count)), calibrates=True)
        archs = self._ask(count, self._least_for(worker))
        return Batch(archs) if archs else None

    def _count_for(self, worker: str) -> int:
        """By its own pace. A first batch is a single architecture, which also pays for the worker's start."""
        if self.batch_size is not None:
            return self.batch_size
        pace = self._pace.get(worker)
        return 1 if pace is None else max(1, min(round(BATCH_SECONDS / max(pace, 1e-6)), MAX_BATCH))

    def _least_for(self, worker: str) -> int:
        """Smaller batches are not worth what each costs the driver. A size that is given is not judged."""
        if self.batch_size is not None:
            return 1
        return max(1, round(LEAST_SECONDS / max(self._pace.get(worker, LEAST_SECONDS), 1e-6)))

    def _ask(self, count: int, least: int) -> tuple[Arch, ...]:
        """Fewer near the end, where a worker would otherwise wait for another's long batch, but `least` of them."""
        archs: list[Arch] = []
        fair = max(math.ceil(self.left / (2 * self.num_workers)), min(least, self.left))
        while len(archs) < min(count, fair):
            arch = self.recorder.sampler.ask()
            if arch is None:
                self.left = len(archs)
                break
            archs.append(arch)
        self.left -= len(archs)
        return tuple(archs)

    def done(self, worker: str, measured: Sequence[Measured]) -> None:
        """What the worker says of its batch."""
        batch = self._pending.get(worker)
        if batch is None:
            return
        self._hear()
        self._pending[worker] = None
        self._pace[worker] = sorted(seconds for _, _, seconds, _ in measured)[len(measured) // 2]
        self._take(batch, measured)

    def lost(self, worker: str, reason: str) -> None:
        """The worker died, or could not be started where it never asked for anything."""
        if worker not in self._pending:
            self.num_failed_starts += 1
            if not self._pending and self.num_failed_starts >= MAX_FAILED_STARTS:
                self.stop(f"{self.num_failed_starts} workers in a row could not be started, the last one: {reason}")
            return
        batch = self._pending.pop(worker)
        if batch is None:
            return
        batch = replace(batch, losses=batch.losses + 1)
        if batch.losses <= MAX_LOSSES:
            self._again.append(batch)
        elif len(batch.archs) > 1:
            self._again.extend(Batch((arch,), batch.calibrates) for arch in batch.archs)
        else:
            self._take(batch, [({}, reason or "its worker died", 0.0, "")])

    def rest(self, worker: str) -> Batch | None:
        """For a worker that is given nothing new, since its machine is about to go: what it has been given, if any."""
        self._hear()
        return self._pending.setdefault(worker, None)

    def gone(self, worker: str) -> None:
        """A worker that had nothing left to read ended."""
        self._pending.pop(worker, None)

    def backoff_s(self) -> float:
        """How long to wait before another worker is started, after failed starts."""
        doublings = min(self.num_failed_starts, 10)
        return min(2.0**doublings, MAX_BACKOFF_S) if doublings else 0.0

    def _take(self, batch: Batch, measured: Sequence[Measured]) -> None:
        rows = [make_row(self.task, arch, *each) for arch, each in zip(batch.archs, measured, strict=True)]
        if batch.calibrates:
            self._calibrate(rows)
        else:
            self.recorder.record(batch.archs, rows)
        self.seconds = time.perf_counter() - (self._began or time.perf_counter())
        self.num_read, self.seconds_reading = (
            self.num_read + len(rows),
            self.seconds_reading + sum(r.seconds for r in rows),
        )
        self._on_read(len(rows))

    def _calibrate(self, rows: Sequence[Row]) -> None:
        assert self._calibrating is not None
        self._sample_rows |= {row.arch_id: row for row in rows}
        sample = [self.task.space.arch_id(arch) for arch in self._calibrating.sample]
        if len(self._sample_rows) < len(sample):
            return
        try:
            self._calibrating.done([self._sample_rows[arch_id] for arch_id in sample])
        except (RunError, UsageError) as error:  # none could be read, or they cannot be written
            self.stop(str(error))
