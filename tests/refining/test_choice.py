"""Who is measured next."""

import dataclasses

import numpy as np
import pytest

from tvt_ray.refining.choice import Candidates, by_draws, spread

NUM = 300


@pytest.fixture
def candidates():
    """Two rows of each shape; the prior grows with size."""
    rng = np.random.default_rng(0)
    params = np.round(np.exp(np.linspace(np.log(1e5), np.log(3e6), NUM))).astype(int)
    shapes = [f"s{number // 2}" for number in range(NUM)]
    return Candidates(shapes, params.tolist(), rng.standard_normal((NUM, 5)), np.log(params) + rng.normal(0, 0.1, NUM))


def test_a_first_round_is_spread_along_the_budget(candidates):
    chosen = spread(candidates, 10, (), np.random.default_rng(1))
    logs = np.sort(np.log([candidates.params[index] for index in chosen]))
    edges = np.linspace(np.log(1e5), np.log(3e6), 11)
    assert np.histogram(logs, edges)[0].tolist() == [0, *[1] * 8, 2]  # the largest, and the prior's first beside it
    assert len({candidates.shapes[index] for index in chosen}) == 10


def test_a_first_round_is_good_by_the_prior_within_its_band():
    """Of two equal in all but the prior, the better one."""
    prior = np.tile([0.0, 100.0], 20)
    params = np.repeat(np.linspace(1e5, 1e6, 20), 2).astype(int).tolist()
    twins = Candidates([str(n) for n in range(40)], params, np.zeros((40, 3)), prior)
    assert all(index % 2 for index in spread(twins, 10, (), np.random.default_rng(0)))


def test_a_first_round_begins_with_whom_one_would_take_without_measuring(candidates):
    """Whatever the guesses say."""
    small_best = dataclasses.replace(candidates, prior=-candidates.prior)
    best, largest = int(small_best.prior.argmax()), NUM - 1
    for seed in range(20):
        assert spread(small_best, 4, (), np.random.default_rng(seed))[:2] == [best, largest]
    assert spread(small_best, 1, (), np.random.default_rng(0)) == [best]


def test_bands_that_hold_nobody_are_made_up_for():
    few = Candidates([*"abcdef"], [100, 101, 102, 103, 104, 10_000], np.zeros((6, 1)), np.arange(6.0))
    assert sorted(spread(few, 4, (), np.random.default_rng(0))) == [2, 3, 4, 5]
    assert len(spread(few, 10, (), np.random.default_rng(0))) == 6


def test_all_of_one_size_are_chosen_by_the_guess_alone():
    same = Candidates([*"abcd"], [100] * 4, np.zeros((4, 1)), np.arange(4.0))
    assert spread(same, 2, (), np.random.default_rng(0)) == [3, 2]


def test_what_was_chosen_before_is_not_chosen_again(candidates):
    rng = np.random.default_rng(1)
    first = spread(candidates, 10, (), rng)
    taken = [candidates.shapes[index] for index in first]
    second = spread(candidates, 10, taken, rng)
    assert not set(taken) & {candidates.shapes[index] for index in second}


def test_draws_choose_the_best_of_each_and_no_shape_twice():
    draws = np.array([[1.0, 5.0, 3.0, 0.0], [1.0, 6.0, 5.0, 0.0], [9.0, 1.0, 1.0, 1.0]])
    assert by_draws(["a", "b", "b", "c"], draws, ()) == [1, 0, 3]
    assert by_draws(["a", "b", "b", "c"], draws, ["a"]) == [1, 3]


def test_the_same_random_numbers_choose_the_same(candidates):
    one, two = (spread(candidates, 12, (), np.random.default_rng(3)) for _ in range(2))
    assert one == two != spread(candidates, 12, (), np.random.default_rng(4))
