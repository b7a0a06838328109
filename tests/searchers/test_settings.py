"""Who may be asked for, and for what."""

import pytest
from pydantic import ValidationError

from tests.conftest import SMALL_SPACES
from tests.searchers.driving import drive
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig
from tvt_ray.searchers import SEARCHERS, build_algorithm
from tvt_ray.searchers.protocol import seeded
from tvt_ray.searchers.random_search import RandomSearch
from tvt_ray.searchers.recorder import Sampler
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits.budget import Budget, Limits


def test_the_table_holds_the_searchers_of_the_readme():
    assert list(SEARCHERS) == ["random", "exhaustive", "evolution", "tpe", "nsga2"]
    assert SearchSettings().searcher == "random"


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_row_builds_an_algorithm(name, space):
    algorithm = build_algorithm(SearchSettings(searcher=name), space, 0)
    assert algorithm.propose() in space
    assert isinstance(algorithm.reaches_all, bool)
    assert algorithm.patience is None or algorithm.patience >= 1


def test_an_unknown_searcher_is_refused_with_the_choices():
    choices = "random, exhaustive, evolution, tpe, nsga2"
    line = rf"^config search\.searcher: unknown searcher 'anneal'; choices: {choices}$"
    with pytest.raises(UsageError, match=line):
        RunConfig().with_(search={"searcher": "anneal"})


def test_a_searcher_that_is_added_to_the_table_can_be_asked_for(monkeypatch):
    space = SMALL_SPACES["pit"]
    monkeypatch.setitem(SEARCHERS, "mine", lambda settings, space, seed: RandomSearch(space, seeded("mine", seed)))
    settings = SearchSettings(searcher="mine")
    assert len(drive(Sampler(build_algorithm(settings, space, 0), Limits(space, Budget(), 10), 0), space, 5)) == 5
    with pytest.raises(UsageError, match="nsga2, mine"):
        RunConfig().with_(search={"searcher": "anneal"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_samples": 0}, "greater than 0"),
        ({"max_failure_share": 1.5}, "less than or equal to 1"),
        ({"max_seconds_per_arch": 0}, "greater than 0"),
        ({"population": 1}, "greater than or equal to 2"),
        ({"objectives": "score_flops"}, "objectives score_flops needs the searcher nsga2; got random"),
        ({"num_workers": 2}, "Extra inputs"),  # it is cluster.scoring_workers
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        SearchSettings(**values)


def test_objectives_are_counted():
    assert SearchSettings().num_objectives == 1
    assert SearchSettings(searcher="nsga2").num_objectives == 1
    assert SearchSettings(searcher="nsga2", objectives="score_flops").num_objectives == 2
