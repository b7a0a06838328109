"""A search that is looked at while it runs: its rows, and what each of its workers does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from machines import DEADLINE_S, Machines, Worker, finish

from tvt_ray.errors import RunError

LOOK_S = 0.2  # between looks


@dataclass(frozen=True)
class Look:
    """A run at a moment."""

    at: float
    num_rows: int  # on disk
    # By process id; those that have died stay as they were. Processor time is counted from a worker's first batch on.
    workers: Mapping[int, Worker]


@dataclass(frozen=True)
class Span:
    """Between two looks."""

    first: Look
    last: Look

    @property
    def seconds(self) -> float:
        return self.last.at - self.first.at

    @property
    def num_rows(self) -> int:
        return self.last.num_rows - self.first.num_rows

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.num_rows / self.seconds if self.seconds else 0.0

    def rows_of(self, pid: int) -> float:
        """A worker's share of the rows, by its share of all workers' processor time."""
        total = sum(self._spent(each, "cpu_s") for each in self.last.workers)
        return self.num_rows * self._spent(pid, "cpu_s") / total if total else 0.0

    def busy(self, pid: int) -> float:
        """The share of the time that a worker had something to compute: 1 where nothing held it."""
        return self._spent(pid, "busy_s") / self.seconds if self.seconds else 0.0

    def _spent(self, pid: int, what: str) -> float:
        before = self.first.workers.get(pid)
        return float(getattr(self.last.workers[pid], what)) - (float(getattr(before, what)) if before else 0.0)


def shares(pid: int, *spans: Span) -> str:
    """How busy a worker was, in words."""
    return ", ".join(f"{span.busy(pid):.2f}" for span in spans)


@dataclass
class Watched:
    """A search that is looked at while it runs."""

    machines: Machines
    folder: Path
    process: subprocess.Popen[str]
    _ids: set[str] = field(default_factory=set)
    _parts: set[Path] = field(default_factory=set)  # that were read: parts are never changed
    _workers: dict[int, Worker] = field(default_factory=dict)
    _starts: dict[int, float] = field(default_factory=dict)  # processor time that a worker took before it read

    def look(self) -> Look:
        for part in set(self.folder.glob("rows/part-*.parquet")) - self._parts:
            try:
                self._ids.update(pq.read_table(part, columns=["arch_id"])["arch_id"].to_pylist())
            except FileNotFoundError:  # merged meanwhile
                continue
            self._parts.add(part)
        at = time.monotonic()
        for pid, worker in self.machines.scoring().items():
            if worker.reads:
                self._starts.setdefault(pid, worker.cpu_s)
            self._workers[pid] = worker._replace(cpu_s=worker.cpu_s - self._starts.get(pid, worker.cpu_s))
        return Look(at, len(self._ids), dict(self._workers))

    def until(self, reached: Callable[[Look], object], what: str, timeout_s: float = DEADLINE_S) -> Span:
        """From now to the first look that is so. Raises RunError where the search ends before."""
        first = look = self.look()
        while not reached(look):
            if self.process.poll() is not None:
                finish(self.process)  # which raises what the search says, where it failed
                raise RunError(f"{what} did not come before the search had read {look.num_rows:,} rows and ended")
            if look.at > first.at + timeout_s:
                raise RunError(f"{what} did not come within {timeout_s:.0f} s")
            time.sleep(LOOK_S)
            look = self.look()
        return Span(first, look)

    def lasting(self, seconds: float) -> Span:
        """From now on, for so long."""
        start = time.monotonic()
        return self.until(lambda look: look.at >= start + seconds, f"the end of {seconds:.0f} s")

    def to_the_end(self) -> tuple[Span, dict[str, Any]]:
        """Until the search is over, and what it says then."""
        first = last = self.look()
        while self.process.poll() is None:
            time.sleep(LOOK_S)
            last = self.look()
        return Span(first, last), finish(self.process)
