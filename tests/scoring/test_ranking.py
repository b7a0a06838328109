"""One order of rows, and choices from it."""

import itertools
import math
import random

import pytest

from tests.conftest import make_row
from tvt_ray.errors import UsageError
from tvt_ray.scoring.ranking import Ranking, by_score, make_ranking
from tvt_ray.scoring.scores import Calibration
from tvt_ray.vits.budget import Budget

NOT_CALIBRATED = Calibration(())  # enough for scores that are single readings


def row(number, score=0.5, flops=10, status="ok", shape=None):
    """A row whose score is its reading `zen`."""
    return make_row(number, flops, status, shape, zen=score)


def rank(rows):
    return make_ranking(rows, "zen", NOT_CALIBRATED)


def ids(entries):
    return [each.row.arch_id for each in entries]


def test_the_top_is_by_score_with_a_fixed_order_of_ties():
    rows = [row(1, 0.2), row(2, 0.9, flops=20), row(3, 0.9, flops=10), row(4, status="failed"), row(5, 0.9, flops=10)]
    assert ids(rank(rows).top(3)) == ["a3", "a5", "a2"]
    assert rank(rows[::-1]).top(3) == rank(rows).top(3)
    assert len(rank(rows).top(99)) == 4
    assert [each.score for each in rank(rows).scored] == [0.9, 0.9, 0.9, 0.2]


def test_the_pareto_front_holds_what_nothing_beats():
    rows = [row(1, 0.2, 5), row(2, 0.1, 6), row(3, 0.5, 6), row(4, 0.5, 7), row(5, 0.9, 9), row(6, status="failed")]
    ranking = rank(rows)
    front = ranking.front()
    assert ids(front) == ["a1", "a3", "a5"]
    beaten = [each for each in ranking.scored if each not in front]
    assert len(beaten) == 2
    assert all(any(f.score >= b.score and f.row.flops <= b.row.flops for f in front) for b in beaten)
    assert by_score("zen", []).front() == []


def test_of_equals_the_front_holds_one():
    assert ids(rank([row(2, 0.5, 6), row(1, 0.5, 6)]).front()) == ["a1"]


def test_the_order_in_which_rows_came_never_matters():
    rng = random.Random(0)
    rows = [row(n, rng.choice((0.1, 0.5)), rng.choice((5, 6)), shape=f"s{n % 7}") for n in range(40)]
    for _ in range(5):
        shuffled = rng.sample(rows, len(rows))
        assert rank(shuffled) == rank(rows)
        assert rank(shuffled).entries == rank(rows).entries


def test_a_choice_holds_the_best_of_each_shape():
    ranking = rank([row(1, 0.9, shape="x"), row(2, 0.8, shape="x"), row(3, 0.7, shape="y"), row(4, 0.6, shape="x")])
    assert ids(ranking.scored) == ["a1", "a2", "a3", "a4"]
    assert ids(ranking.entries) == ids(ranking.top(99)) == ["a1", "a3"]
    assert ranking.num_shapes == 2


def test_the_front_holds_one_of_each_shape():
    rows = [row(1, 0.9, 9, shape="x"), row(2, 0.8, 5, shape="x"), row(3, 0.7, 4, shape="y")]
    assert ids(rank(rows).front()) == ["a3", "a1"]


def test_the_head_is_a_ranking_of_the_top_alone():
    ranking = rank([row(1, 0.9, shape="x"), row(2, 0.8, shape="x"), row(3, 0.7), row(4, 0.6)])
    head = ranking.head(2)
    assert isinstance(head, Ranking)
    assert head.by == "zen"
    assert ids(head.scored) == ids(head.entries) == ["a1", "a3"]
    assert ids(ranking.head(99).scored) == ["a1", "a3", "a4"]
    assert ranking.head(0).scored == ()


def test_within_a_budget_the_order_stays():
    ranking = rank([row(1, 0.9, 30), row(2, 0.8, 20), row(3, 0.7, 10), row(4, 0.6, 20)])
    assert ids(ranking.within(Budget(max_flops=20)).entries) == ["a2", "a3", "a4"]
    assert ids(ranking.within(Budget(max_params=3)).entries) == ["a1", "a2", "a3"]  # a row's number is its parameters
    assert ids(ranking.within(Budget(min_params=2, min_flops=20)).entries) == ["a2", "a4"]
    assert ranking.within(Budget()) == ranking
    assert ranking.within(Budget(max_flops=1)).entries == ()


def test_a_budget_that_leaves_out_the_best_of_a_shape_leaves_the_next():
    ranking = rank([row(5, 0.9, shape="x"), row(2, 0.8, shape="x")])
    assert ids(ranking.within(Budget(max_params=4)).top(1)) == ["a2"]


@pytest.fixture
def wide():
    """A front of thirty from 1k to 10M FLOPs, and as many again that it beats."""
    flops = [round(10 ** (3 + 4 * n / 29)) for n in range(30)]
    rows = [row(n, float(n), count) for n, count in enumerate(flops)]
    return rank([*rows, *(row(100 + n, n - 0.5, count + 1) for n, count in enumerate(flops))])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 29])
def test_a_ladder_goes_down_from_the_best_along_the_front(count, wide):
    ladder = wide.ladder(count)
    assert ladder[0] == wide.top(1)[0] == wide.front()[-1]
    assert 1 <= len(ladder) <= count
    assert set(ids(ladder)) <= set(ids(wide.front()))
    flops = [each.row.flops for each in ladder]
    assert all(larger > smaller for larger, smaller in itertools.pairwise(flops))


def test_a_ladders_rungs_are_evenly_apart_by_log_flops(wide):
    ladder = wide.ladder(5)
    assert len(ladder) == 5
    logs = [math.log10(each.row.flops) for each in ladder]
    assert logs == pytest.approx([7, 6, 5, 4, 3], abs=4 / 29 / 2 + 1e-3)  # half the way to a neighbour


def test_a_ladder_holds_the_whole_front_where_that_is_short(wide):
    assert wide.ladder(30) == wide.ladder(99) == wide.front()[::-1]
    assert ids(rank([row(1)]).ladder(3)) == ["a1"]
    assert rank([]).ladder(3) == []


def test_a_ladder_of_none_is_empty(wide):
    assert wide.ladder(0) == []


def test_where_a_front_has_gaps_a_ladder_names_nothing_twice():
    small = [row(n, n / 10, 1000 + n) for n in range(1, 5)]
    ranking = rank([*small, row(5, 0.9, 10**9)])
    assert ids(ranking.ladder(4)) == ["a5", "a4", "a1"]  # two rungs are nearest to the best
    assert ids(ranking.ladder(2)) == ["a5", "a1"]


def test_rows_that_cannot_be_scored_are_no_part_of_it():
    ranking = rank([row(1, status="failed"), row(2)])
    assert ids(ranking.scored) == ["a2"]
    assert rank([row(1, status="failed")]).scored == ()


def test_a_ranking_by_what_was_not_read_or_is_unknown_is_refused():
    with pytest.raises(UsageError, match="score 'synflow' is made of 'synflow', which this run did not read"):
        make_ranking([row(1)], "synflow", NOT_CALIBRATED)
    with pytest.raises(ValueError, match="unknown score 'accuracy'; choices: "):
        make_ranking([row(1)], "accuracy", NOT_CALIBRATED)


def test_a_score_that_is_calibrated_orders_as_the_calibration_says():
    rows = [make_row(number, attention_similarity=-number, l2_norm=number**2) for number in range(1, 6)]
    calibration = Calibration.from_rows(rows)
    ranking = make_ranking(rows, "tvt", calibration)
    assert ranking.by == "tvt"
    assert [each.score for each in ranking.scored] == sorted((calibration.score("tvt", r) for r in rows), reverse=True)
