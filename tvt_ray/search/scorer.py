"""Architectures to rows: draw the weights, read the student, nothing else. Plain torch; Ray is not imported."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tvt_ray.models import build_student
from tvt_ray.proxies import PROXIES, Components, Probe
from tvt_ray.search.rows import Row
from tvt_ray.space import Arch, Space


@dataclass(frozen=True)
class ScoringTask:
    """All that a worker needs to score any architecture of a run."""

    space: Space
    num_classes: int
    proxies: tuple[str, ...]  # names in PROXIES
    seed: int
    probe: Probe
    num_inits: int = 1  # initialisations that each reading is the mean of
    max_seconds: float | None = None  # for one architecture; None: no limit


class Scorer:
    """Scores architectures one at a time; what it gives depends on the architecture and the task alone."""

    def __init__(self, task: ScoringTask, device: torch.device | str = "cpu") -> None:
        self.task, self.device = task, torch.device(device)
        self.probe = task.probe.to(self.device)
        if self.device.type != "cpu":
            self.probe = self.probe.with_chunk(len(self.probe.images))  # as much at once as its memory takes

    def components(self, arch: Arch) -> Components:
        """Raw readings by name, each the mean over the initialisations.

        Raises ArithmeticError when one of them is not a finite number.
        """
        draws = [self._readings(arch, draw) for draw in range(self.task.num_inits)]
        readings = {name: math.fsum(each[name] for each in draws) / len(draws) for name in draws[0]}
        broken = [name for name, value in readings.items() if not math.isfinite(value)]
        if broken:
            raise ArithmeticError(f"{', '.join(broken)} is not a finite number")
        return readings

    def _readings(self, arch: Arch, draw: int) -> Components:
        """Of one initialisation; when memory runs out, again with smaller chunks of the probe, from here on."""
        task = self.task
        while True:
            try:
                student = build_student(
                    task.space, arch, task.num_classes, task.seed, self.device, draw=draw, shared=True
                )
                readings: dict[str, float] = {}
                for name in task.proxies:
                    readings.update(PROXIES[name](student, self.probe))
                return readings
            except torch.OutOfMemoryError:
                if self.probe.chunk == 1:
                    raise
                self.probe = self.probe.with_chunk(math.ceil(min(self.probe.chunk, len(self.probe.images)) / 2))
                torch.cuda.empty_cache()

    def score(self, arch: Arch) -> Row:
        """A row without a score yet; an architecture that raises becomes a failed row with its error."""
        start = time.perf_counter()
        try:
            with time_limit(self.task.max_seconds):
                components, error = self.components(arch), None
        except Exception as raised:  # whatever goes wrong with one architecture is that architecture's result
            components, error = {}, f"{type(raised).__name__}: {raised}"
        return make_row(self.task, arch, components, error, time.perf_counter() - start)

    def score_all(self, archs: Sequence[Arch]) -> list[Row]:
        return [self.score(arch) for arch in archs]


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError in the block once it has taken `seconds`; None: never.

    By an alarm, which only a process's main thread can take, and takes between two of torch's operations: one that
    hangs for good is not ended by it (search/tune.py ends the worker).
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"scoring took more than {seconds:g} s (search.max_seconds_per_arch)")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def make_row(task: ScoringTask, arch: Arch, components: Components, error: str | None, seconds: float) -> Row:
    """A row without a score yet, failed where there is an error."""
    cost = task.space.cost(arch, task.num_classes)
    return Row(
        arch_id=task.space.arch_id(arch),
        space=task.space.name,
        arch=task.space.to_json(arch),
        params=cost.params,
        flops=cost.flops,
        status="failed" if error else "ok",
        error=error,
        seed=task.seed,
        seconds=seconds,
        components=components,
    )
