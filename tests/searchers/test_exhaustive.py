"""Exhaustive search goes through a space in its own order."""

from tests.searchers.driving import drive, make, replay
from tvt_ray.vits.budget import Budget


def test_the_order_is_the_spaces_own(space):
    assert drive(make("exhaustive", space), space, space.size()) == list(space.enumerate())


def test_what_was_read_before_is_passed_over_and_the_order_stays(space):
    archs = list(space.enumerate())
    sampler = make("exhaustive", space)
    for arch in archs[1::2]:
        replay(sampler, arch, (0.0,))
    assert drive(sampler, space, space.size()) == archs[::2]


def test_a_budget_leaves_the_order_as_it_is(space):
    costs = {arch: space.cost(arch, 10).flops for arch in space.enumerate()}
    limit = sorted(costs.values())[space.size() // 2]
    sampler = make("exhaustive", space, Budget(max_flops=limit))
    assert drive(sampler, space, space.size()) == [arch for arch, flops in costs.items() if flops <= limit]
    assert sampler.ask() is None
