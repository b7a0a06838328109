"""What a batch of a cohort takes, measured."""

from __future__ import annotations

import math
import time

import torch

from tvt_ray.distillation.cohort import Cohort
from tvt_ray.distillation.losses import distillation_loss
from tvt_ray.training.loaders import generators_as_they_were
from tvt_ray.training.pace import Pace


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
