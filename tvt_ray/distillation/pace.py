"""What a batch of a cohort takes, measured."""

from __future__ import annotations

import functools
import time

from tvt_ray.distillation.cohort import Cohort
from tvt_ray.training.pace import Pace, finished, measure_pace


def measure(cohort: Cohort, cpus: int) -> Pace:
    """On one thread and on `cpus`. Weights and generators stay as they are."""
    return measure_pace(functools.partial(_measure_batch, cohort), cpus)


def _measure_batch(cohort: Cohort) -> Pace:
    start, device = time.perf_counter(), cohort.worker.device
    images, labels = cohort.placed(next(iter(cohort.loader)))
    loaded = finished(device)
    images, targets = cohort.targets(images, labels)
    taught = cohort.teach(images)
    for learner in cohort.learners.values():
        learner.rehearse(images, targets, taught)
    return Pace(loaded - start, finished(device) - loaded, on_gpu=device.type == "cuda")
