"""Optuna's samplers: a bounded history, and generations that survive it and a resume."""

import random

import pytest

from tests.searchers.driving import MEDIUM, drive, make, replay, value
from tvt_ray.searchers import build_algorithm, optuna_search
from tvt_ray.searchers.optuna_search import best_and_latest, two_generations
from tvt_ray.searchers.recorder import Sampler
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits.budget import Budget, Limits


def sampler_of(settings):
    return Sampler(build_algorithm(settings, MEDIUM, 0), Limits(MEDIUM, Budget(), 10), 0)


@pytest.mark.parametrize(("searcher", "population"), [pytest.param("tpe", 2, marks=pytest.mark.slow), ("nsga2", 6)])
def test_what_an_optuna_sampler_keeps_is_bounded(searcher, population, monkeypatch):
    """The study is begun anew again and again, in a search and in the replay of its rows, and goes on improving."""
    monkeypatch.setattr(optuna_search, "MAX_HISTORY", 25)
    settings = SearchSettings(searcher=searcher, population=population)
    sampler = sampler_of(settings)
    archs, most = [], 0
    for _ in range(120):
        archs += drive(sampler, MEDIUM, 1)
        most = max(most, len(sampler.algorithm.study.trials))
    assert 25 < most <= 2 * 25
    values = [value(MEDIUM, arch) for arch in archs]
    assert sum(values[-40:]) / 40 > sum(values[:20]) / 20 + 1
    resumed = sampler_of(settings)
    for arch, told in zip(archs, values, strict=True):
        replay(resumed, arch, (told,))
        assert len(resumed.algorithm.study.trials) <= 2 * 25
    further = drive(resumed, MEDIUM, 20)
    assert not set(further) & set(archs)
    assert sum(value(MEDIUM, arch) for arch in further) / 20 > sum(values[:20]) / 20 + 1


def test_nsga2_keeps_its_parents_and_its_present_generation(monkeypatch):
    monkeypatch.setattr(optuna_search, "MAX_HISTORY", 12)
    sampler = sampler_of(SearchSettings(searcher="nsga2", population=6))
    algorithm = sampler.algorithm
    drive(sampler, MEDIUM, 21)
    before = [trial.params for trial in two_generations(algorithm.study, 12)]
    algorithm._num_trials = 24  # as many as it may be
    drive(sampler, MEDIUM, 1)
    after = [trial.params for trial in two_generations(algorithm.study, 12)]
    assert len(before) >= 6
    assert after[: len(before)] == before


def test_nsga2s_generations_are_rebuilt_from_rows():
    settings = SearchSettings(searcher="nsga2", population=6)
    first, resumed = (sampler_of(settings) for _ in range(2))
    for arch in drive(first, MEDIUM, 21):
        replay(resumed, arch, (value(MEDIUM, arch),))
    kept = [[t.params for t in two_generations(s.algorithm.study, 12)] for s in (first, resumed)]
    assert kept[0] == kept[1]


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


def test_tpe_keeps_the_best_quarter_and_the_latest():
    sampler = make("nsga2", MEDIUM)  # any study will do
    drive(sampler, MEDIUM, 40)
    done = [trial for trial in sampler.algorithm.study.trials if trial.values]  # others were proposed again
    assert len(done) == 40
    kept = best_and_latest(sampler.algorithm.study, 12)
    best = sorted((trial.value for trial in done), reverse=True)[:3]
    assert [trial.value for trial in kept[:3]] == best
    assert len(kept) <= 12
    assert {trial.number for trial in done[-9:]} <= {trial.number for trial in kept}
    assert len({trial.number for trial in kept}) == len(kept)


def test_a_history_in_which_nothing_was_scored_leaves_nothing_to_keep():
    study = make("nsga2", MEDIUM).algorithm.study
    assert two_generations(study, 12) == best_and_latest(study, 12) == []


def test_rejected_and_failed_proposals_are_told_as_failed_trials():
    from optuna.trial import TrialState

    algorithm = make("nsga2", MEDIUM).algorithm
    first, second = algorithm.propose(), algorithm.propose()
    algorithm.reject(first)
    algorithm.observe(second, None)
    assert [trial.state for trial in algorithm.study.trials] == [TrialState.FAIL] * 2
