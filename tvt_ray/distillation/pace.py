"""What a batch of a cohort takes, measured."""

from __future__ import annotations

import dataclasses
import time

import torch

from tvt_ray.distillation.cohort import Cohort
from tvt_ray.distillation.losses import distillation_loss
from tvt_ray.training.loaders import generators_as_they_were
from tvt_ray.training.pace import Pace, scaling_of


def measure(cohort: Cohort, cpus: int) -> Pace:
    """Of one batch, the second of two, on one thread and on `cpus`. Weights and generators stay as they are."""
    threads = torch.get_num_threads()
    with generators_as_they_were():
        one, many = (_on_threads(cohort, count) for count in (1, cpus))
    torch.set_num_threads(threads)
    return dataclasses.replace(one, scaling=scaling_of(one.step_s, many.step_s, cpus))


def _on_threads(cohort: Cohort, threads: int) -> Pace:
    torch.set_num_threads(threads)
    _measure_batch(cohort)
    return _measure_batch(cohort)


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
    on_gpu = cohort.worker.device.type == "cuda"
    return Pace(loaded - start, time.perf_counter() - loaded, on_gpu=on_gpu)
