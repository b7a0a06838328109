"""What a verb does to its process: seconds that it takes, signals, and what it leaves as it was."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import torch

from tvt_ray.errors import FIRST_TO_END
from tvt_ray.progress import say
from tvt_ray.training.loaders import generators_as_they_were

WRITING_S = 2.0


class Stopwatch:
    """What the time goes into. `with clock("data"): …` adds to it; `seconds` has them all."""

    def __init__(self) -> None:
        self.start, self._seconds = time.perf_counter(), dict[str, float]()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """Adds seconds that were measured otherwise."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by name, rounded to hundredths."""
        return {name: round(value, 2) for name, value in self._seconds.items()}

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.start


@contextlib.contextmanager
def on_sigterm(stop: Callable[[str], None]) -> Iterator[None]:
    """Calls `stop` with a reason where the process is asked to end; as Ctrl-C, it then ends in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop("the process was asked to end (SIGTERM)"))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_without_ray(reason: str, command: str) -> None:
    """Says what happened and how to go on, and ends the process, as Ray is about to: nothing waits for it any more.

    What was handed on for writing is on disk a moment later. A terminal's Ctrl-C ends Ray's processes too: then it was
    no loss, and who was interrupted ends as such.
    """
    for end in FIRST_TO_END:
        end()
    say(f"error: {reason}; what was written is kept; go on with: {command}")
    time.sleep(WRITING_S)
    os._exit(1)


@contextlib.contextmanager
def process_as_it_was() -> Iterator[None]:
    """Whatever the block does to torch's threads, random numbers and Optuna's log is undone at its end."""
    threads, optuna = torch.get_num_threads(), logging.getLogger("optuna")
    level = optuna.level
    with generators_as_they_were():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            optuna.setLevel(level)
