"""Whether a teacher is worth following: does it know more than which class is the largest?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tvt_ray.data.splits import Dataset
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.training import teacher_accuracy

STANDARD_ERRORS = 2


@dataclass(frozen=True)
class Verdict:
    """A teacher beside whoever always names the class that has most training images, in percent of validation."""

    accuracy: float
    majority: float
    num_images: int  # that validate

    @property
    def threshold(self) -> float:
        """Two standard errors above the majority: what luck does not explain. At most 100."""
        share = self.majority / 100
        error = 100 * math.sqrt(share * (1 - share) / self.num_images)
        return min(self.majority + STANDARD_ERRORS * error, 100.0)

    @property
    def worth_following(self) -> bool:
        """Whether the teacher reaches the threshold."""
        return self.accuracy >= self.threshold

    def sentence(self) -> str:
        """Why, in figures."""
        return (
            f"it names {self.accuracy:.1f} % of {self.num_images:,} validation images right; the largest class has "
            f"{self.majority:.1f} %, and {STANDARD_ERRORS} standard errors more are {self.threshold:.1f} %"
        )


def judge(teacher: Teacher, data: Dataset) -> Verdict:
    """On validation images, at the teacher's own size."""
    largest = np.bincount(data.train.labels, minlength=data.num_classes).argmax()
    majority = 100 * float(np.mean(data.val.labels == largest))
    return Verdict(teacher_accuracy(teacher, data.val), majority, len(data.val))
