"""The contract of every searcher behind one ask and tell."""

import random
from typing import get_args

import pytest

from tvt_ray.search import algorithms
from tvt_ray.search.algorithms import Sampler, SearchSettings, build_algorithm
from tvt_ray.space import AutoFormerSpace, Budget, as_space

SEARCHERS = get_args(SearchSettings.model_fields["searcher"].annotation)
MEDIUM = as_space(
    AutoFormerSpace(
        image_size=32,
        patch_size=8,
        embed_dim=(24, 36, 48),
        depth=(2, 3, 4, 5),
        num_heads=(2, 3),
        mlp_ratio=(1.5, 2.0),
    )
)


@pytest.fixture(params=SEARCHERS)
def searcher(request):
    return request.param


def make(searcher, space, budget=None, seed=0, **settings):
    chosen = SearchSettings(searcher=searcher, population=10, tournament=4, **settings)
    return Sampler(build_algorithm(chosen, space, seed), space, budget or Budget(), 10, seed)


def value(space, arch):
    return float(sum(space.encode(arch)))


def drive(sampler, space, count, tell=True):
    """Asks and tells `count` times; stops early when there is nothing more."""
    archs = []
    for _ in range(count):
        arch = sampler.ask()
        if arch is None:
            break
        archs.append(arch)
        if tell:
            sampler.tell(arch, (value(space, arch),))
    return archs


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
    assert all(budget.admits(MEDIUM.cost(arch, 10)) for arch in archs)


def test_a_budget_that_few_meet_finds_all_of_them(searcher, space, monkeypatch):
    monkeypatch.setattr(algorithms, "MAX_RANDOM_REJECTIONS", 500)  # the rest is found by enumeration
    costs = [space.cost(arch, 10).params for arch in space.enumerate()]
    budget = Budget(max_params=sorted(costs)[4])
    fitting = [arch for arch, params in zip(space.enumerate(), costs, strict=True) if params <= budget.max_params]
    assert set(drive(make(searcher, space, budget), space, space.size())) == set(fitting)


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
        sampler.replay(arch, (value(space, arch),))
    rest = drive(sampler, space, space.size())
    assert not set(rest) & set(done)
    assert len(rest) + len(done) == space.size()


@pytest.mark.parametrize("lost", [0, 3])
def test_interrupted_random_search_ends_with_the_same_set(lost):
    whole = set(drive(make("random", MEDIUM), MEDIUM, 60))
    begun = drive(make("random", MEDIUM), MEDIUM, 30)
    kept = begun[: len(begun) - lost]  # those in flight were lost
    sampler = make("random", MEDIUM)
    for arch in kept:
        sampler.replay(arch, (0.0,))
    assert {*kept, *drive(sampler, MEDIUM, 60 - len(kept))} == whole


def test_a_long_random_search_is_caught_up_with_when_it_is_resumed(monkeypatch):
    """However many rows there are, passing over them is not what ends the search for a new architecture."""
    begun = drive(make("random", MEDIUM), MEDIUM, 60)
    monkeypatch.setattr(algorithms, "MAX_RANDOM_REJECTIONS", 5)
    monkeypatch.setattr(algorithms, "MAX_ENUMERATION", 0)
    sampler = make("random", MEDIUM)
    for arch in begun[:40]:
        sampler.replay(arch, (0.0,))
    assert drive(sampler, MEDIUM, 20) == begun[40:]


@pytest.mark.parametrize(("searcher", "population"), [pytest.param("tpe", 2, marks=pytest.mark.slow), ("nsga2", 6)])
def test_what_an_optuna_sampler_keeps_is_bounded(searcher, population, monkeypatch):
    """The study is begun anew again and again, in a search and in the replay of its rows, and goes on improving."""
    monkeypatch.setattr(algorithms, "MAX_HISTORY", 25)
    settings = SearchSettings(searcher=searcher, population=population)
    sampler = Sampler(build_algorithm(settings, MEDIUM, 0), MEDIUM, Budget(), 10, 0)
    archs, most = [], 0
    for _ in range(120):
        archs += drive(sampler, MEDIUM, 1)
        most = max(most, len(sampler.algorithm.study.trials))
    assert 25 < most <= 2 * 25
    values = [value(MEDIUM, arch) for arch in archs]
    assert sum(values[-40:]) / 40 > sum(values[:20]) / 20 + 1
    resumed = Sampler(build_algorithm(settings, MEDIUM, 0), MEDIUM, Budget(), 10, 0)
    for arch, told in zip(archs, values, strict=True):
        resumed.replay(arch, (told,))
        assert len(resumed.algorithm.study.trials) <= 2 * 25
    further = drive(resumed, MEDIUM, 20)
    assert not set(further) & set(archs)
    assert sum(value(MEDIUM, arch) for arch in further) / 20 > sum(values[:20]) / 20 + 1


def test_nsga2_keeps_its_parents_and_its_present_generation(monkeypatch):
    monkeypatch.setattr(algorithms, "MAX_HISTORY", 12)
    algorithm = build_algorithm(SearchSettings(searcher="nsga2", population=6), MEDIUM, 0)
    sampler = Sampler(algorithm, MEDIUM, Budget(), 10, 0)
    drive(sampler, MEDIUM, 21)
    before = [trial.params for trial in algorithms.two_generations(algorithm.study, 12)]
    algorithm._num_trials = 24  # as many as it may be
    drive(sampler, MEDIUM, 1)
    after = [trial.params for trial in algorithms.two_generations(algorithm.study, 12)]
    assert len(before) >= 6
    assert after[: len(before)] == before


def test_nsga2s_generations_are_rebuilt_from_rows():
    settings = SearchSettings(searcher="nsga2", population=6)
    first, resumed = (Sampler(build_algorithm(settings, MEDIUM, 0), MEDIUM, Budget(), 10, 0) for _ in range(2))
    for arch in drive(first, MEDIUM, 21):
        resumed.replay(arch, (value(MEDIUM, arch),))
    kept = [[t.params for t in algorithms.two_generations(s.algorithm.study, 12)] for s in (first, resumed)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("searcher", ["evolution", pytest.param("tpe", marks=pytest.mark.slow), "nsga2"])
def test_guided_searchers_beat_random_draws(searcher):
    """On a value that adds up over choices, the last quarter proposed is better than random draws are."""
    space, count = MEDIUM, 120
    guided = [value(space, arch) for arch in drive(make(searcher, space), space, count)]
    drawn = [value(space, arch) for arch in drive(make("random", space), space, count)]
    assert sum(guided[-40:]) / 40 > sum(drawn) / count + 1


def test_two_objectives_spread_over_the_front():
    sampler = make("nsga2", MEDIUM, objectives="score_flops")
    flops = []
    for _ in range(150):
        arch = sampler.ask()
        cost = MEDIUM.cost(arch, 10).flops
        flops.append(cost)
        sampler.tell(arch, (value(MEDIUM, arch), float(cost)))
    random_mean = sum(MEDIUM.cost(MEDIUM.sample(random.Random(i)), 10).flops for i in range(200)) / 200
    assert min(flops[-50:]) < random_mean < max(flops[-50:])
    with pytest.raises(ValueError, match="needs the searcher nsga2"):
        SearchSettings(searcher="tpe", objectives="score_flops")


def test_a_space_with_one_architecture():
    space = as_space(AutoFormerSpace(embed_dim=(24,), depth=(2,), num_heads=(2,), mlp_ratio=(2.0,)))
    for searcher in SEARCHERS:
        assert len(drive(make(searcher, space), space, 5)) == 1
