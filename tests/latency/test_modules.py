"""Modules of parts: what a space says that a part is, is what is built and timed."""

import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import SMALL_SPACES
from tvt_ray.latency.design import parts_of
from tvt_ray.latency.modules import PARTS, build_part
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.costs import Cost

RELATIVE = AutoFormerSpace(image_size=64, embed_dim=(96,), depth=(2,), head_dim=64, relative_position=True)
SPACES = [*SMALL_SPACES.values(), RELATIVE]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}{space.image_size}")
def test_the_module_of_every_part_costs_what_the_part_says(space):
    for part in parts_of(space):
        module, shape = build_part(part)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            assert module(torch.zeros(1, *shape)).isfinite().all()
        built = Cost(sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2)
        assert (part.kind, part.sizes, built) == (part.kind, part.sizes, part.cost)


def test_parts_fit_together_as_in_the_student(space):
    parts = space.parts(space.sample(random.Random(0)), 7)
    outputs = None
    for part in parts[:-1]:
        module, shape = build_part(part)
        inputs = torch.zeros(2, *shape) if outputs is None else outputs
        assert inputs.shape[1:] == shape
        outputs = module(inputs)
    assert outputs.shape[2] == parts[-1].sizes[1]


def test_every_kind_of_part_is_built_and_none_that_is_in_no_space():
    assert {part.kind for space in SPACES for part in parts_of(space)} == PARTS.keys()


def test_weights_are_numbers_as_a_students():
    part = next(part for part in parts_of(SMALL_SPACES["vit"]) if part.kind == "block")
    weights = torch.cat([parameter.flatten() for parameter in build_part(part)[0].parameters()])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
