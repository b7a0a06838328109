import dataclasses
import random

import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.proxies.zico import zico
from tvt_ray.vits import build_student


def test_zico_needs_images_for_its_batches(probe):
    space = SMALL_SPACES["autoformer"]
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    few = dataclasses.replace(probe, images=probe.images[:3], labels=probe.labels[:3])
    with pytest.raises(ValueError, match="at least 4"):
        zico(student, few)
