"""What is to be trained next."""

import random

import pytest
from pydantic import ValidationError

from tvt_ray.refining.halving import Halving, RefineSettings, Training, next_round_size


def test_rungs_are_a_third_and_two_thirds_of_a_training_unless_they_are_given():
    assert RefineSettings().rungs_of(40) == (13, 26)
    assert RefineSettings().rungs_of(300) == (100, 200)
    assert RefineSettings().rungs_of(5) == (1, 3)
    assert RefineSettings().rungs_of(1) == (1,)
    assert RefineSettings(rungs=(2, 5)).rungs_of(5) == (2, 5)


def test_a_rung_beyond_the_training_is_refused():
    with pytest.raises(ValueError, match=r"refine\.rungs ends at 6 epochs, distill\.epochs is 5"):
        RefineSettings(rungs=(2, 6)).rungs_of(5)


@pytest.mark.parametrize("rungs", [(), (3, 3), (4, 2), (0, 2)], ids=str)
def test_rungs_rise(rungs):
    with pytest.raises(ValidationError):
        RefineSettings(rungs=rungs)


HALVING = Halving(rungs=(2, 6), reduction=3, repeats=0, seed=5)
FIRST = tuple("abcdef")
GOOD = {name: float(score) for name, score in zip("abcdefghi", (50, 60, 40, 80, 20, 70, 90, 10, 65), strict=True)}


def measure(measured, todo):
    """As cohorts would: accuracy is the student's own, a little more with every epoch."""
    measured |= {(each.arch_id, each.seed, each.epochs): GOOD[each.arch_id] + each.epochs for each in todo}


def test_all_students_are_trained_to_the_first_rung_and_the_best_third_to_the_next():
    measured = {}
    todo = HALVING.missing([FIRST], measured)
    assert todo == [Training(name, 5, 2) for name in FIRST]
    measure(measured, todo)
    todo = HALVING.missing([FIRST], measured)
    assert todo == [Training("d", 5, 6), Training("f", 5, 6)]
    measure(measured, todo)
    assert HALVING.missing([FIRST], measured) == []


def test_a_rung_is_trained_to_the_end_before_the_next_is_decided():
    measured = {}
    measure(measured, HALVING.missing([FIRST], measured)[:4])
    assert HALVING.missing([FIRST], measured) == [Training("e", 5, 2), Training("f", 5, 2)]


def test_a_later_round_trains_on_the_best_of_all_so_far():
    measured = {}
    while todo := HALVING.missing([FIRST], measured):
        measure(measured, todo)
    rounds = [FIRST, ("g", "h", "i")]
    todo = HALVING.missing(rounds, measured)
    assert todo == [Training(name, 5, 2) for name in "ghi"]
    measure(measured, todo)
    assert HALVING.missing(rounds, measured) == [Training("g", 5, 6)]  # of nine, three: g, d and f


def test_the_first_students_are_repeated_with_another_seed_to_the_first_rung():
    halving = Halving(rungs=(2, 6), reduction=3, repeats=2, seed=5)
    todo = halving.missing([FIRST], {})
    assert todo[:6] == [Training(name, 5, 2) for name in FIRST]
    assert todo[6:] == [Training("a", 6, 2), Training("b", 6, 2)]


def test_equally_good_ones_go_on_in_the_order_in_which_they_were_chosen():
    measured = {(name, 5, 2): 50.0 for name in FIRST}
    assert [each.arch_id for each in HALVING.missing([("f", "b", "a", "c", "d", "e")], measured)] == ["f", "b"]


def test_whoever_goes_on_at_any_moment_comes_to_the_same_trainings():
    """Measurements arrive one by one in any order; what was asked for is asked for again until it is there."""
    rng, asked, measured = random.Random(0), list[Training](), {}
    rounds = [FIRST, ("g", "h", "i")]
    while todo := HALVING.missing(rounds, measured):
        asked += [each for each in todo if each not in asked]
        measure(measured, [rng.choice(todo)])
    assert asked == [
        *(Training(name, 5, 2) for name in FIRST),
        *(Training(name, 5, 6) for name in "df"),
        *(Training(name, 5, 2) for name in "ghi"),
        Training("g", 5, 6),
    ]


def test_what_others_trained_for_longer_changes_nothing():
    """A student that distil trained to its end is not promoted by it."""
    measured = {("e", 5, epochs): 20.0 for epochs in range(1, 20)}
    while todo := HALVING.missing([FIRST], measured):
        measure(measured, todo)
    trained = {name for name, _, epochs in measured if epochs == 6}
    assert trained == {"d", "e", "f"}
    assert ("c", 5, 6) not in measured


def test_epochs_that_rounds_may_take_are_known_beforehand():
    assert HALVING.most_epochs([6]) == 6 * 2 + 2 * 4
    assert HALVING.most_epochs([6, 3]) == 6 * 2 + 2 * 4 + 3 * 2 + 3 * 4
    assert Halving((2, 6), 3, 2, 0).most_epochs([6]) == 6 * 2 + 2 * 4 + 2 * 2


@pytest.mark.parametrize(
    ("settings", "rounds", "size"),
    [
        ({"num_students": 16}, [], 8),
        ({"num_students": 16}, [8], 8),
        ({"num_students": 16}, [8, 8], 0),
        ({"num_students": 20}, [8, 8], 4),
        ({"num_students": 24, "rounds": 3}, [8], 8),
        ({"num_students": 13}, [], 8),  # as many as the surrogate learns from, so that it chooses the others
        ({"num_students": 13}, [8], 5),
        ({"num_students": 7, "rounds": 3}, [], 7),
        ({"num_students": 12, "rounds": 6}, [8], 2),
        ({"num_students": 16, "max_epochs": 28}, [], 8),
        ({"num_students": 16, "max_epochs": 28}, [8], 0),
        ({"num_students": 16, "max_epochs": 20}, [], 6),
        ({"num_students": 16, "max_epochs": 1}, [], 0),
    ],
    ids=str,
)
def test_rounds_share_the_students_and_stay_inside_the_budget_of_epochs(settings, rounds, size):
    assert next_round_size(RefineSettings(repeats=0, **settings), HALVING, rounds) == size
