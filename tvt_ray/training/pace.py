"""How a training's CPUs are divided between loading images and computing."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tvt_ray.training.loaders import generators_as_they_were


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


def measure_pace(measure_batch: Callable[[], Pace], cpus: int) -> Pace:
    """What `measure_batch` says of the second of two batches, on one thread and on `cpus`.

    Threads and generators are as they were afterwards.
    """
    threads = torch.get_num_threads()
    with generators_as_they_were():
        one, many = (_on_threads(measure_batch, count) for count in (1, cpus))
    torch.set_num_threads(threads)
    return dataclasses.replace(one, scaling=scaling_of(one.step_s, many.step_s, cpus))


def _on_threads(measure_batch: Callable[[], Pace], threads: int) -> Pace:
    torch.set_num_threads(threads)
    measure_batch()
    return measure_batch()


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
