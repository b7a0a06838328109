"""Fits of synthetic times, whose terms are known, and what they predict."""

import math
import random

import numpy as np
import pytest

from tests.conftest import SMALL_SPACES
from tests.latency.synthetic import synthetic_batch, true_ms
from tvt_ray.errors import UsageError
from tvt_ray.latency.measure import parts_of
from tvt_ray.latency.predictor import PartTimes, Predictor, fastest, fit_parts, fit_whole, part_terms, relative_error
from tvt_ray.latency.profile import Error, PartFit
from tvt_ray.vits.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.vits.blocks import Block, TokenHead
from tvt_ray.vits.vit import ViTSpace

WIDE = ViTSpace(image_size=32, embed_dim=(48, 96, 192), depth=(2, 3), patch_size=(4, 8), head_dim=(24, 48))


def test_times_that_are_sums_of_the_terms_are_found_again():
    known = dict(zip(PartFit.model_fields, (0.03, 0.02, 0.4, 0.7), strict=True))
    blocks = [part for part in parts_of(WIDE) if part.kind == "block"]
    times = {part: float(np.dot(list(known.values()), part_terms(part))) for part in blocks}
    assert dict(fit_parts(times)["block"]) == pytest.approx(known, rel=1e-6)


def test_every_kind_has_its_own_fit():
    parts = parts_of(WIDE)
    fits = fit_parts({part: {"block": 2.0}.get(part.kind, 1.0) for part in parts})
    assert fits.keys() == {"patches", "conv_stem", "block", "head"}
    assert fits["block"].ms == pytest.approx(2)
    assert fits["head"].ms == pytest.approx(1)


def test_nothing_is_ever_faster_for_being_larger():
    """Times that fall with size: the overhead alone is left."""
    blocks = [part for part in parts_of(WIDE) if part.kind == "block"]
    fit = fit_parts({part: 1 / math.sqrt(part.cost.flops) for part in blocks})["block"]
    assert fit.ms > 0
    assert (fit.ms_per_mflop, fit.ms_per_mparam, fit.ms_per_mvalue) == (0, 0, 0)


def test_a_single_part_is_fitted_too():
    part = parts_of(SMALL_SPACES["pit"])[0]
    fit = fit_parts({part: 0.5})[part.kind]
    assert np.dot(list(dict(fit).values()), part_terms(part)) == pytest.approx(0.5)


def test_students_are_a_line_of_their_parts():
    fit = fit_whole([1, 2, 5], [1.5, 2.6, 5.9])
    assert (fit.ms, fit.per_parts_ms) == (pytest.approx(0.4), pytest.approx(1.1))


def test_errors_are_relative_to_what_was_measured():
    assert relative_error([1.25, 2, 2], [1, 4, 2]) == Error(num=3, median=0.25, worst=0.5)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_what_adds_up_is_predicted_exactly_whatever_the_classes(space, batch_size):
    batch = synthetic_batch(space, batch_size)
    for num_classes in (2, 100, 1000):
        predict = Predictor.of(batch, space, num_classes)
        for arch in space.enumerate():
            assert predict(arch) == pytest.approx(true_ms(space, arch, batch_size), rel=1e-6)
    assert batch.error.worst < 1e-6
    assert batch.fit_error.worst < 1e-6


def test_a_part_takes_what_was_measured_else_what_its_kind_says():
    fit = PartFit(ms=1, ms_per_mflop=0, ms_per_mparam=1e6, ms_per_mvalue=0)
    block, other = Block.part(17, 24, 2, 24, 48), Block.part(17, 24, 3, 24, 48)
    times = PartTimes({("block", block.sizes): 0.5}, {"block": fit})
    assert times.part_ms(block) == 0.5
    assert times.part_ms(other) == pytest.approx(1 + other.cost.params)
    assert times.sum_ms([block, block, other]) == pytest.approx(2 + other.cost.params)
    with pytest.raises(UsageError, match="knows no parts of kind 'head': block"):
        times.part_ms(TokenHead.part(1, 24, 10))


def test_a_deeper_student_is_never_predicted_to_be_faster():
    space = AutoFormerSpace(image_size=32, patch_size=8, embed_dim=(24,), depth=(1, 2, 3, 4), num_heads=(2, 3))
    predict = Predictor.of(synthetic_batch(space), space, 10)
    times = [predict(AutoFormerArch(24, (2,) * depth, (4.0,) * depth)) for depth in (1, 2, 3, 4)]
    assert times == sorted(set(times))


def test_the_fastest_of_a_space_that_can_be_gone_through_is_the_fastest(space):
    values = {space.arch_id(arch): random.Random(i).random() for i, arch in enumerate(space.enumerate())}
    found = fastest(space, lambda arch: values[space.arch_id(arch)])
    assert values[space.arch_id(found)] == min(values.values())


def test_the_fastest_of_a_large_space_is_found_where_parts_add_up():
    space = AutoFormerSpace()
    found = fastest(space, lambda arch: sum(space.cost(arch, 10)) + sum(arch.num_heads))
    assert found == AutoFormerArch(192, (3,) * 12, (3.5,) * 12)


def test_the_fastest_of_a_single_architecture_is_that():
    space = SMALL_SPACES["autoformer"].model_copy(update={"depth": (2,), "num_heads": (2,), "mlp_ratio": (2.0,)})
    assert fastest(space, lambda arch: 3.0) == AutoFormerArch(24, (2, 2), (2.0, 2.0))
