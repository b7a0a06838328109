import random

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.errors import RunError
from tvt_ray.quality.predictions import probabilities_of
from tvt_ray.vits import build_student

SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture
def student():
    return build_student(SPACE, SPACE.sample(random.Random(0)), 10, seed=0)


def test_probabilities_are_the_softmax_of_each_image_in_order(student, digits):
    split, seen = digits.test.take(np.arange(300)), []
    found = probabilities_of(student, split, 32, seen.append)
    assert (found.shape, found.dtype, seen) == ((300, 10), np.float64, [256, 44])
    assert found.sum(1) == pytest.approx(np.ones(300), abs=1e-12)
    alone = probabilities_of(student, split.take(np.array([299])), 32)
    assert found[299] == pytest.approx(alone[0], abs=1e-6)


def test_a_student_whose_weights_are_broken_is_one_line(student, digits):
    with torch.no_grad():
        student.head.bias[0] = torch.nan
    with pytest.raises(RunError, match="not finite numbers"):
        probabilities_of(student, digits.test.take(np.arange(3)), 32)
