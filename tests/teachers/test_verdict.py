"""Whether a teacher is worth following."""

import dataclasses

import numpy as np
import pytest

from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import Verdict, judge


def test_a_trained_teacher_is_and_an_untrained_one_is_not(teacher, digits):
    untrained = build_teacher(TeacherSettings(image_size=16), 10).freeze()
    assert judge(teacher, digits).worth_following
    verdict = judge(untrained, digits)
    assert not verdict.worth_following
    assert f"names {verdict.accuracy:.1f} % of 144 validation images right" in verdict.sentence()


def test_the_majority_is_the_training_splits_largest_class(teacher, digits):
    """Sevens in validation, where training has most of the threes."""
    train = digits.train.take(np.flatnonzero(np.isin(digits.train.labels, (3, 7)))[:60])
    threes, sevens = (np.flatnonzero(digits.val.labels == digit) for digit in (3, 7))
    largest, other = (threes, sevens) if (train.labels == 3).sum() > (train.labels == 7).sum() else (sevens, threes)
    val = digits.val.take(np.concatenate([largest[:3], other[:9]]))
    assert judge(teacher, dataclasses.replace(digits, train=train, val=val)).majority == 25


@pytest.mark.parametrize(
    ("verdict", "threshold", "worth"),
    [
        (Verdict(62.1, 54.2, 24), 74.5, False),  # ants and bees, ten steps of SGD
        (Verdict(75.0, 54.2, 24), 74.5, True),
        (Verdict(60.0, 54.2, 2400), 56.2, True),
        (Verdict(99.0, 98.0, 50), 100.0, False),  # of a class that nearly all have, few images can say nothing
        (Verdict(100.0, 100.0, 50), 100.0, True),
    ],
)
def test_two_standard_errors_above_the_majority_are_more_than_luck(verdict, threshold, worth):
    assert verdict.threshold == pytest.approx(threshold, abs=0.06)
    assert verdict.worth_following is worth
