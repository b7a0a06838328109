"""Architectures to rows: draw the weights, read the student, nothing else. Plain torch; Ray is not imported."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from tvt_ray.proxies import PROXIES, Probe, Readings
from tvt_ray.scoring.faults import DeviceError, is_of_device, is_out_of_memory
from tvt_ray.scoring.rows import Row, Status, unread
from tvt_ray.storage.locations import first_line
from tvt_ray.training.pace import device_name, exact_float32
from tvt_ray.vits import Arch, Space, build_student
from tvt_ray.vits.student import Student


@dataclass(frozen=True)
class ReadingTask:
    """All that a worker needs to read any architecture of a run."""

    space: Space
    num_classes: int
    proxies: tuple[str, ...]  # names in PROXIES
    seed: int
    probe: Probe
    num_inits: int = 1  # initialisations that each reading is the mean of
    max_seconds: float | None = None  # for one architecture; None: no limit
    plugins: tuple[str, ...] = ()  # modules that add rows to the tables, which each process imports


class Reader:
    """Reads architectures one at a time; what it gives depends on the architecture and the task alone."""

    def __init__(self, task: ReadingTask, device: torch.device | str = "cpu") -> None:
        self.task, self.device = task, torch.device(device)
        self.device_name = device_name(self.device)
        self.probe = task.probe.to(self.device)
        if self.device.type != "cpu":
            self.probe = replace(self.probe, chunk=len(self.probe.images))  # as much at once as its memory takes

    def readings(self, arch: Arch) -> Readings:
        """Raw readings by name, each the mean over the initialisations.

        Raises ArithmeticError when one of them is not a finite number.
        """
        with exact_float32():
            draws = [self._of_draw(arch, draw) for draw in range(self.task.num_inits)]
        readings = {name: math.fsum(each[name] for each in draws) / len(draws) for name in draws[0]}
        broken = [name for name, value in readings.items() if not math.isfinite(value)]
        if broken:
            raise ArithmeticError(f"{', '.join(broken)} is not a finite number")
        return readings

    def _of_draw(self, arch: Arch, draw: int) -> Readings:
        """Of one initialisation."""
        task = self.task
        student = build_student(task.space, arch, task.num_classes, task.seed, self.device, draw=draw, shared=True)
        return {name: self._read(name, student) for name in task.proxies}

    def _read(self, name: str, student: Student) -> float:
        """One reading; when memory runs out, again with half as much of the probe at a time, of this reading alone."""
        probe = self.probe
        while True:
            try:
                return PROXIES[name].read(student, probe)
            except Exception as error:
                if not is_out_of_memory(error) or probe.chunk == 1:
                    raise
            # Out here nothing holds the tensors any more: in the block above, the traceback does.
            probe = replace(probe, chunk=math.ceil(min(probe.chunk, len(probe.images)) / 2))
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def read(self, arch: Arch) -> Row:
        """An architecture that raises becomes a failed row with its error.

        Raises DeviceError where the device failed, and not the architecture.
        """
        start = time.perf_counter()
        try:
            with time_limit(self.task.max_seconds):
                readings, error = self.readings(arch), None
        except Exception as raised:  # whatever goes wrong with one architecture is that architecture's result
            if is_of_device(raised):
                raise DeviceError(first_line(raised)) from raised
            readings, error = {}, f"{type(raised).__name__}: {raised}"
        return make_row(self.task, arch, readings, error, time.perf_counter() - start, self.device_name)

    def read_all(self, archs: Sequence[Arch]) -> list[Row]:
        """The rows of these architectures, read one after the other."""
        return [self.read(arch) for arch in archs]


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError in the block once it has taken `seconds`; None: never.

    By an alarm, which only a process's main thread can take, and takes between two of torch's operations: one that
    hangs for good is not ended by it (cluster/scoring.py ends the worker).
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"reading it took more than {seconds:g} s (search.max_seconds_per_arch)")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def make_row(
    task: ReadingTask, arch: Arch, readings: Readings, error: str | None, seconds: float, device: str = ""
) -> Row:
    """The row of an architecture that was read; failed where there is an error. `device`: the name of what read it."""
    row = unread(task.space, arch, task.num_classes, task.seed)
    status: Status = "failed" if error else "ok"
    return replace(row, status=status, error=error, seconds=seconds, readings=readings, device=device)
