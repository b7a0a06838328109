import math
import random
import sys

import pytest

from tvt_ray.proxies.passes import gradients, matrices, positive_copy, response_to_ones
from tvt_ray.proxies.synflow import synflow
from tvt_ray.vits import build_student
from tvt_ray.vits.autoformer import AutoFormerSpace


def test_rescaling_between_blocks_does_not_change_synflow(space, probe):
    """On small students the flow does not overflow, and the plain computation in double precision is the reference."""
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    clone = positive_copy(student, with_norms=False)
    weights = matrices(clone)
    found = gradients(response_to_ones(clone, probe.images), weights)
    plain = sum((weight * gradient).abs().sum().item() for weight, gradient in zip(weights, found, strict=True))
    assert synflow(student, probe) == pytest.approx(math.log(plain), rel=0.02)


@pytest.mark.slow
def test_deep_students_do_not_overflow(probe):
    """SynFlow multiplies up from block to block: beyond any float at this depth, but not as a logarithm."""
    space = AutoFormerSpace(image_size=32, patch_size=8, embed_dim=(128,), depth=(160,), num_heads=(2,))
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    flow = synflow(student, probe)
    assert math.isfinite(flow)
    assert flow > math.log(sys.float_info.max)
