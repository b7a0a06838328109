"""The contract of every searcher behind one ask and tell."""

import random

import pytest

from tests.searchers.driving import MEDIUM, TINY, drive, make, replay, value
from tvt_ray.searchers import SEARCHERS
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.budget import Budget


@pytest.fixture(params=SEARCHERS)
def searcher(request):
    return request.param


@pytest.fixture(params=sorted(TINY))
def space(request):
    return TINY[request.param]


def test_nothing_is_given_out_twice_and_the_whole_space_is_found(searcher, space):
    sampler = make(searcher, space)
    archs = drive(sampler, space, 10 * space.size())
    assert len(archs) == len(set(archs)) == space.size()
    assert sampler.exhausted


def test_what_is_over_budget_is_never_given_out(searcher):
    costs = sorted(MEDIUM.cost(MEDIUM.sample(random.Random(i)), 10).params for i in range(200))
    budget = Budget(min_params=costs[60], max_params=costs[140])
    archs = drive(make(searcher, MEDIUM, budget), MEDIUM, 30)
    assert len(archs) == 30
    assert all(budget.admits(*MEDIUM.cost(arch, 10)) for arch in archs)


def test_a_budget_that_few_meet_finds_all_of_them(searcher, space, monkeypatch):
    monkeypatch.setattr("tvt_ray.searchers.recorder.MAX_RANDOM_REJECTIONS", 500)  # the rest is found by enumeration
    costs = [space.cost(arch, 10).params for arch in space.enumerate()]
    budget = Budget(max_params=sorted(costs)[4])
    fitting = [arch for arch, params in zip(space.enumerate(), costs, strict=True) if params <= budget.max_params]
    assert set(drive(make(searcher, space, budget), space, space.size())) == set(fitting)


def test_a_budget_that_none_meets_ends_at_once(searcher, space, monkeypatch):
    monkeypatch.setattr("tvt_ray.searchers.recorder.MAX_RANDOM_REJECTIONS", 50)
    sampler = make(searcher, space, Budget(max_params=1))
    assert [sampler.ask(), sampler.ask()] == [None, None]
    assert sampler.exhausted


def test_a_space_too_large_to_enumerate_is_given_up_after_so_many_draws(searcher, space, monkeypatch):
    monkeypatch.setattr("tvt_ray.searchers.recorder.MAX_RANDOM_REJECTIONS", 50)
    monkeypatch.setattr("tvt_ray.searchers.recorder.MAX_ENUMERATION", 1)
    sampler = make(searcher, space, Budget(max_params=1))
    assert sampler.ask() is None
    assert sampler.exhausted


def test_same_seed_same_proposals(searcher):
    first, again = (drive(make(searcher, MEDIUM), MEDIUM, 25) for _ in range(2))
    assert first == again
    if searcher != "exhaustive":
        assert drive(make(searcher, MEDIUM, seed=1), MEDIUM, 25) != first


def test_asking_ahead_and_telling_late_or_failed(searcher):
    sampler = make(searcher, MEDIUM)
    for _ in range(12):
        batch = drive(sampler, MEDIUM, 4, tell=False)
        assert len(set(batch)) == 4
        sampler.tell(batch[2], None)
        for arch in (batch[3], batch[0], batch[1]):
            sampler.tell(arch, (value(MEDIUM, arch),))


def test_replayed_architectures_are_known(searcher, space):
    done = drive(make("random", space), space, space.size() // 2)
    sampler = make(searcher, space)
    for arch in done:
        replay(sampler, arch, (value(space, arch),))
    rest = drive(sampler, space, space.size())
    assert not set(rest) & set(done)
    assert len(rest) + len(done) == space.size()


def test_what_is_skipped_is_not_given_out_before_anything_is_told_of_it(searcher, space):
    """A resumed run may have rows that cannot be scored yet."""
    done = drive(make("random", space), space, space.size() // 2)
    sampler = make(searcher, space)
    for arch in done:
        sampler.skip(arch)
    first = drive(sampler, space, 3)
    for arch in done:
        sampler.tell(arch, (value(space, arch),))
    rest = [*first, *drive(sampler, space, space.size())]
    assert not set(rest) & set(done)
    assert len(rest) + len(done) == space.size()


def test_a_space_with_one_architecture():
    space = AutoFormerSpace(embed_dim=(24,), depth=(2,), num_heads=(2,), mlp_ratio=(2.0,))
    for searcher in SEARCHERS:
        assert len(drive(make(searcher, space), space, 5)) == 1


@pytest.mark.parametrize("searcher", ["evolution", pytest.param("tpe", marks=pytest.mark.slow), "nsga2"])
def test_guided_searchers_beat_random_draws(searcher):
    """On a value that adds up over choices, the last quarter proposed is better than random draws are."""
    space, count = MEDIUM, 120
    guided = [value(space, arch) for arch in drive(make(searcher, space), space, count)]
    drawn = [value(space, arch) for arch in drive(make("random", space), space, count)]
    assert sum(guided[-40:]) / 40 > sum(drawn) / count + 1
