import numpy as np

from tests.conftest import SMALL_SPACES
from tvt_ray.latency.design import HEAD_CLASSES, NUM_CLASSES, parts_of, timed_parts, whole_archs
from tvt_ray.vits.autoformer import AutoFormerSpace
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
