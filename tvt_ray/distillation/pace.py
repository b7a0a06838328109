"""How a training's CPUs are shared between loading images and computing: measured, then divided."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from tvt_ray.data.loaders import generators_as_they_were
from tvt_ray.distillation.cohort import Cohort
from tvt_ray.distillation.losses import distillation_loss

# What t threads make of a student's small matrices: t^0.7 times as fast as one (1.6 times for two).
THREAD_SCALING = 0.7


@dataclass(frozen=True)
class Pace:
    """Seconds that a batch takes on one thread: to load and augment, and to train all students of a cohort on."""

    load_s: float
    step_s: float
    on_gpu: bool = False


@dataclass(frozen=True)
class Division:
    """CPUs that load images, a process each (0: the trainer loads between steps), and threads that compute."""

    loader_workers: int
    threads: int


def divide(cpus: int, pace: Pace) -> Division:
    """The division in which a step takes least. Nothing but the time depends on it."""
    divisions = [Division(loaders, max(1, cpus - loaders)) for loaders in range(max(1, cpus))]
    return min(divisions, key=lambda division: _step_seconds(division, pace))


def _step_seconds(division: Division, pace: Pace) -> float:
    computing = pace.step_s if pace.on_gpu else pace.step_s / division.threads**THREAD_SCALING
    if division.loader_workers == 0:
        return pace.load_s + computing
    return max(pace.load_s / division.loader_workers, computing)


def measure(cohort: Cohort) -> Pace:
    """Of one batch, the second of two, on one thread. The cohort's weights and generators stay as they are."""
    threads, pace = torch.get_num_threads(), Pace(math.inf, math.inf)
    torch.set_num_threads(1)
    with generators_as_they_were():
        for _ in range(2):
            pace = _measure_batch(cohort)
    torch.set_num_threads(threads)
    return pace


def _measure_batch(cohort: Cohort) -> Pace:
    start = time.perf_counter()
    images, labels = cohort.placed(next(iter(cohort.loader)))
    loaded = time.perf_counter()
    images, targets = cohort.targets(images, labels)
    taught = cohort.teach(images)
    for learner in cohort.learners.values():
        learner.guided.train()
        distillation_loss(learner.guided(images), taught, targets, cohort.settings.loss)["loss"].backward()  # type: ignore[no-untyped-call]
        learner.optimizer.zero_grad()
    if cohort.worker.device.type == "cuda":
        torch.cuda.synchronize(cohort.worker.device)
    return Pace(loaded - start, time.perf_counter() - loaded, cohort.worker.device.type == "cuda")
