"""How fast a training is on a machine: its CPUs divided between loading and computing, and mixed precision."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tvt_ray.vits.kernels import HAS_BF16

Amp = Literal["off", "auto", "bfloat16", "float16"]
NUM_TIMED = 3
WORTH_IT = 0.95  # of the time in float32 that mixed precision may take to be chosen


@dataclass(frozen=True)
class Pace:
    """Seconds that a batch takes on one thread: to load and augment, and to train on.

    `scaling`: t threads train t^scaling times as fast; 0 where a batch is too small for more than one.
    """

    load_s: float
    step_s: float
    scaling: float = 0.7
    on_gpu: bool = False


def scaling_of(one_s: float, many_s: float, threads: int) -> float:
    """From a step's seconds on one thread and on several: 0 to 1."""
    if threads < 2:
        return 0.0
    return min(max(math.log(one_s / many_s) / math.log(threads), 0.0), 1.0)


def device_here() -> torch.device:
    """The GPU of this machine, if it has one that torch can use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Of a GPU its own; of a CPU the instructions that torch's kernels are chosen by: what last bits depend on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else str(device)


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Within the block, float32 is float32: convolutions on a GPU take TF32 by default, of ten bits instead of 23."""
    _SWITCHES.set()
    try:
        yield
    finally:
        _SWITCHES.put_back()


class _Switches:
    """Torch's, which are the process's: of several threads in such blocks the last that leaves puts them back."""

    def __init__(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0
        self._before: list[tuple[Any, str, object]] = []

    def set(self) -> None:
        with self._lock:
            if not self._blocks:
                exact = self._exact()
                self._before = [(backend, name, getattr(backend, name)) for backend, name, _ in exact]
                self._apply(exact)
            self._blocks += 1

    def put_back(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                self._apply(self._before)

    @staticmethod
    def _apply(values: list[tuple[Any, str, object]]) -> None:
        for backend, name, value in values:
            setattr(backend, name, value)

    @staticmethod
    def _exact() -> list[tuple[Any, str, object]]:
        backends: Any = torch.backends
        if hasattr(backends.cudnn, "conv"):  # from torch 2.9 on, which takes only these where somebody has set one
            parts = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
            return [(part, "fp32_precision", "ieee") for part in parts]
        return [(backends.cudnn, "allow_tf32", False), (backends.cuda.matmul, "allow_tf32", False)]


_SWITCHES = _Switches()


def finished(device: torch.device) -> float:
    """The time at which the device has computed what it was given, as `time.perf_counter` has it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Division:
    """CPUs that load images, a process each (0: the trainer loads between steps), and threads that compute."""

    loader_workers: int
    threads: int


def divide(cpus: int, pace: Pace) -> Division:
    """The division in which a step takes least. Beside the time, the last bits of sums depend on it (by threads)."""
    divisions = [Division(loaders, max(1, cpus - loaders)) for loaders in range(max(1, cpus))]
    return min(divisions, key=lambda division: step_seconds(division, pace))


def step_seconds(division: Division, pace: Pace) -> float:
    """What a step takes, images included."""
    computing = pace.step_s if pace.on_gpu else pace.step_s / division.threads**pace.scaling
    if division.loader_workers == 0:
        return pace.load_s + computing
    return max(pace.load_s / division.loader_workers, computing)


def candidates(device: torch.device) -> list[torch.dtype | None]:
    """What `auto` chooses from: float32 (None), and the precision that the device has instructions for, if any.

    A processor without them computes in bfloat16 all the same, many times slower: too slow to be tried.
    """
    if device.type == "cpu" and not HAS_BF16:
        return [None]
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return [None, torch.float16]
    return [None, torch.bfloat16]


def fast_precision(amp: Amp, device: torch.device) -> torch.dtype | None:
    """Of what is computed beside what trains: as set, or for `auto` what the device is made for."""
    return candidates(device)[-1] if amp == "auto" else choose_precision(amp, device, lambda: None)


def choose_precision(amp: Amp, device: torch.device, step: Callable[[], None]) -> torch.dtype | None:
    """The type that `torch.autocast` is given, None for float32.

    `auto` times `step` (forward and backward) in each that the device is made for.
    """
    if amp == "off":
        return None
    if amp != "auto":
        return torch.bfloat16 if amp == "bfloat16" else torch.float16
    possible = candidates(device)
    seconds = [_seconds(dtype, device, step) for dtype in possible]
    return possible[-1] if seconds[-1] < WORTH_IT * seconds[0] else None


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Computes in `dtype` what can be, within the block."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _seconds(dtype: torch.dtype | None, device: torch.device, step: Callable[[], None]) -> float:
    """Of the fastest of some steps, after one that warms up."""
    times = []
    for _ in range(1 + NUM_TIMED):
        start = time.perf_counter()
        with autocast(dtype, device):
            step()
        times.append(finished(device) - start)
    return min(times[1:])
