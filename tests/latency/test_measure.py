"""What is timed, the parts as modules, and what is made of the times."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import SMALL_SPACES
from tests.latency.synthetic import TIMES, true_ms
from tests.vits.test_trunks import SPACE as STAGES
from tvt_ray.latency.measure import (
    HEAD_CLASSES,
    NUM_CLASSES,
    NUM_ROUNDS,
    Bench,
    build_part,
    in_rounds,
    make_batch,
    measure_profile,
    parts_of,
    timed_parts,
    whole_archs,
)
from tvt_ray.latency.predictor import Predictor
from tvt_ray.latency.profile import this_device
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.blocks import Block
from tvt_ray.vits.pieces import Cost
from tvt_ray.vits.vit import ViTSpace


def test_all_parts_of_a_space_are_found_once(space):
    parts = parts_of(space)
    every = {part for arch in space.enumerate() for classes in HEAD_CLASSES for part in space.parts(arch, classes)}
    assert len(parts) == len(every)
    assert set(parts) == every


def test_parts_of_a_space_too_large_to_go_through_are_found_by_draws():
    """AutoFormer-Ti: three widths, each with two numbers of heads and two ratios."""
    kinds = [part.kind for part in parts_of(AutoFormerSpace())]
    assert {kind: kinds.count(kind) for kind in kinds} == {"patches": 3, "block": 3 * 2 * 2, "head": 3 * 2}


def test_all_are_timed_where_there_are_few():
    parts = parts_of(SMALL_SPACES["vit"])
    assert sorted(timed_parts(parts)) == sorted(parts)


def test_of_many_those_are_timed_that_lie_apart_the_ends_among_them():
    parts = parts_of(ViTSpace(image_size=32, patch_size=(4, 8), head_dim=(16,), embed_dim=tuple(range(32, 400, 16))))
    chosen = timed_parts(parts, most=12)
    for kind in ("patches", "conv_stem", "block", "head"):
        all_flops = [part.cost.flops for part in parts if part.kind == kind]
        flops = [part.cost.flops for part in chosen if part.kind == kind]
        assert len(flops) == 12
        assert (min(flops), max(flops)) == (min(all_flops), max(all_flops))
        if kind != "head":  # those are of 10 and of 1,000 classes
            gaps = np.diff(np.log(sorted(flops)))
            assert gaps.max() < np.log(max(flops) / min(flops)) / 3
    assert timed_parts(parts, most=12) == chosen


def test_students_are_spread_over_the_sizes_of_a_space(space):
    archs = whole_archs(space, 6)
    flops = [space.cost(arch, NUM_CLASSES).flops for arch in archs]
    assert len(set(archs)) == 6
    assert flops == sorted(flops)
    assert whole_archs(space, 6) == archs
    assert set(whole_archs(space, 200)) <= set(space.enumerate())


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


TINY = ViTSpace(image_size=16, embed_dim=(24,), depth=(1, 2), head_dim=(12,), mlp_ratio=(1,), patch_size=(8,))


def test_each_is_measured_in_every_round_and_its_least_time_counts():
    times = [iter([3.0, 1.0, 2.0]), iter([5.0, 7.0, 6.0])]
    counted = itertools.count()
    assert in_rounds([lambda t=t: next(t) for t in times], lambda: next(counted)) == [1.0, 5.0]
    assert next(counted) == 2 * NUM_ROUNDS


def test_students_that_settle_the_sum_do_not_judge_it():
    """Every other student takes twice what its parts say: all that judge are wrong by as much."""
    space = SMALL_SPACES["vit"]
    archs = whole_archs(space, 10)
    sums = [true_ms(space, arch) for arch in archs]
    times = {part: TIMES[part.kind] for part in parts_of(space)}
    batch = make_batch(space, 1, times, archs, [ms * (1 + i % 2) for i, ms in enumerate(sums)])
    assert batch.error.num == 5
    assert (batch.error.median, batch.error.worst) == (pytest.approx(0.5), pytest.approx(0.5))
    predict = Predictor.of(batch, space, NUM_CLASSES)
    assert [predict(arch) for arch in archs] == pytest.approx(sums)
    assert batch.students_ms == (min(sums), 2 * max(sums[1::2]))


def test_a_single_architecture_settles_and_judges():
    space = TINY.model_copy(update={"depth": (1,), "stem": ("patch",), "pool": ("mean",)})
    archs = whole_archs(space, 4)
    batch = make_batch(space, 1, dict.fromkeys(parts_of(space), 1.0), archs, [6.0])
    assert (len(archs), batch.error.num, batch.error.worst) == (1, 1, pytest.approx(0, abs=1e-6))


@pytest.mark.slow
def test_a_space_is_measured_on_this_machine(capsys):
    profile = measure_profile(TINY, this_device("cpu"), 1, (1, 3), num_students=4)
    assert (profile.device, profile.threads, profile.space) == (this_device("cpu"), 1, TINY)
    assert [batch.batch_size for batch in profile.batches] == [1, 3]
    for batch in profile.batches:
        assert {(part.kind, part.sizes) for part in batch.parts} == {(p.kind, p.sizes) for p in parts_of(TINY)}
        assert batch.error.num == 2
        predict = Predictor.of(batch, TINY, 10)
        assert all(predict(arch) > 0 for arch in TINY.enumerate())
    assert "profiling: " in capsys.readouterr().err


@pytest.mark.night
@pytest.mark.slow
def test_each_cut_of_a_convnet_is_a_kind_of_part():
    profile = measure_profile(STAGES, this_device("cpu"), 1, [1], num_students=6)
    batch = profile.batch(1)
    assert {"mobilenetv3_small_050.stage1", "mobilenetv3_small_050.stage3", "conv_stem"} <= batch.fits.keys()
    predict = Predictor.of(batch, STAGES, 10)
    by_stem = {arch.stem: predict(arch) for arch in STAGES.enumerate()}
    assert 0 < by_stem["stage1"] < by_stem["stage3"]
