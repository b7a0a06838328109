"""Progress with a rate and an ETA, on standard error: a live bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LOG_INTERVAL_S = 10.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="cyan")


class Meter:
    """Counts towards a total. `with Meter("scoring", 5000, "images") as meter: meter.advance(16, "best 1.9")`."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """`done`: counted already, by an earlier run; left out of the rate."""
        console = Console(stderr=True)
        self._bar = _make_bar(console) if console.is_terminal else None
        self.title, self.total, self.unit, self.done, self._note = title, total, unit, done, ""
        self._start_done, self._start, self._last_line = done, time.monotonic(), time.monotonic()
        self._task = self._bar.add_task(title, total=total, completed=done, note="") if self._bar else None

    def __enter__(self) -> Meter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None and self.done > self._start_done:
            self._print_line(self._note)

    def advance(self, count: int, note: str = "") -> None:
        """Counts on; `note` stands beside the count."""
        self.done += count
        self._note = note
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.done, note=note)
        elif time.monotonic() - self._last_line >= LOG_INTERVAL_S:
            self._print_line(note)

    def _print_line(self, note: str) -> None:
        self._last_line = time.monotonic()
        rate = (self.done - self._start_done) / max(self._last_line - self._start, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        eta = f", {timedelta(seconds=round(left))} left" if 0 < left < float("inf") else ""
        note = f", {note}" if note else ""
        say(f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f}/s{eta}{note}")


def _make_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)
