"""What a recipe asks of a dataset, and of the machine that it is for."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DataFacts:
    """What a recipe asks of a dataset."""

    num_train: int
    num_val: int
    num_classes: int
    side: int  # of the training images, the median of the shorter side; pixels
    grey: bool  # whether all images are


@dataclass(frozen=True)
class Speeds:
    """Seconds that things take on this machine, as measured."""

    teacher_step_s: float  # a batch; 0: it is trained already
    student_step_s: float  # a batch, of one student of the largest size, with the teacher's pass
    arch_s: float  # an architecture read, by workers on all cores
    head_s: float = 0.0  # a frozen teacher's head, from first to last; 0: the teacher is trained otherwise
    # Of students with frozen stages: a batch that teacher and stages see for the first time, and one that they know.
    test_s: float = 0.0  # what testing teacher and student takes
    choices_s: float = 0.0  # that comparing ways to learn may take
    view_step_s: float = 0.0
    frozen_step_s: float = 0.0


def steps_per_epoch(num_train: int, batch: int) -> int:
    """Batches of an epoch, the last partial one among them. `batch`: images of one."""
    return math.ceil(num_train / min(batch, num_train))
