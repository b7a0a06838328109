"""Parts as modules, and what is timed of them."""

import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import SMALL_SPACES
from tests.latency.synthetic import TIMES
from tvt_ray.latency.design import parts_of
from tvt_ray.latency.timing import Bench, build_part
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.blocks import Block
from tvt_ray.vits.costs import Cost


def test_parts_and_students_take_some_time_and_leave_the_threads_alone(space):
    bench, arch = Bench("cpu", 1, 2), next(iter(space.enumerate()))
    threads = torch.get_num_threads()
    assert bench.part_ms(space.parts(arch, 10)[0]) > 0
    assert bench.student_ms(space, arch, 10) > 0
    assert torch.get_num_threads() == threads


def test_times_are_in_milliseconds_of_one_part():
    """Some 10^8 multiply-accumulates: no CPU does them in 10 microseconds, and each does in 10 seconds."""
    assert 0.01 < Bench("cpu", 1, 1).part_ms(Block.part(197, 192, 3, 192, 768)) < 10_000


def test_a_batch_is_what_the_student_sees():
    seen = []
    space = SMALL_SPACES["vit"]
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0].shape)) if type(module).__name__ == "ViT" else None
    )
    Bench("cpu", 1, 5).student_ms(space, next(iter(space.enumerate())), 10)
    handle.remove()
    assert set(seen) == {(5, 3, 32, 32)}


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


def test_these_are_the_kinds_that_a_profile_holds():
    assert {part.kind for space in SPACES for part in parts_of(space)} == TIMES.keys()


def test_weights_are_numbers_as_a_students():
    part = next(part for part in parts_of(SMALL_SPACES["vit"]) if part.kind == "block")
    weights = torch.cat([parameter.flatten() for parameter in build_part(part)[0].parameters()])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
