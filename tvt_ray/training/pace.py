"""How a training's CPUs are divided between loading images and computing."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch


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
