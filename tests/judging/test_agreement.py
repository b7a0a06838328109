"""Statistics against scipy and against hand-made tables."""

import numpy as np
import pytest
from scipy import stats

from tvt_ray.judging.agreement import (
    Sizes,
    agreement,
    at_equal_size,
    gain_at_budgets,
    kendall_resampled,
    noise_share,
    partial_correlation,
)

RNG = np.random.default_rng(0)


def test_resampled_tau_is_scipys_of_each_resample_ties_included():
    x, y = RNG.integers(0, 5, 30).astype(float), RNG.normal(size=30)
    draws = RNG.integers(0, 30, (20, 30))
    expected = [stats.kendalltau(x[rows], y[rows])[0] for rows in draws]
    assert kendall_resampled(x, y, draws) == pytest.approx(expected)


def test_agreement_of_a_perfect_an_inverse_and_a_constant_score():
    accuracy = np.linspace(60, 70, 21)
    perfect, inverse, constant = (agreement(s, accuracy) for s in (accuracy**3, -accuracy, np.ones(21)))
    assert (perfect.kendall, perfect.spearman) == (pytest.approx(1), pytest.approx(1))
    assert perfect.kendall_ci95 == (pytest.approx(1), pytest.approx(1))
    assert (perfect.top1_regret, perfect.top5_regret, perfect.top1_gain) == (0, 0, 5)
    assert inverse.kendall == pytest.approx(-1)
    assert inverse.top1_regret == 10
    assert inverse.top5_regret == pytest.approx(8)
    assert constant.kendall is constant.kendall_ci95 is constant.pearson is None
    assert constant.top1_regret == 10  # ties count against the score


def test_intervals_hold_the_estimate_and_narrow_with_more_architectures():
    accuracy = RNG.normal(size=200)
    score = accuracy + RNG.normal(size=200)
    few, many = agreement(score[:30], accuracy[:30]), agreement(score, accuracy)
    for result in (few, many):
        for name in ("kendall", "spearman", "pearson"):
            low, high = getattr(result, f"{name}_ci95")
            assert low < getattr(result, name) < high
    width = [high - low for low, high in (few.kendall_ci95, many.kendall_ci95)]
    assert width[1] < width[0]


@pytest.mark.slow
def test_partial_correlation_sees_through_a_common_cause():
    cause = RNG.normal(size=400)
    x, y = cause + 0.5 * RNG.normal(size=400), cause + 0.5 * RNG.normal(size=400)
    assert stats.spearmanr(x, y)[0] > 0.6
    r, low, high = partial_correlation(x, y, [cause])
    assert low < 0 < high
    assert abs(r) < 0.15
    direct, low, _ = partial_correlation(x, y + x, [cause])
    assert direct > low > 0.3
    assert partial_correlation(2 * cause, y, [cause]) is None  # nothing is left of it


def test_gain_is_over_the_median_of_what_the_budget_admits():
    params, accuracy = np.arange(1, 11), np.arange(10.0)
    assert gain_at_budgets(params.astype(float), accuracy, params, [1.0]) == 4.5
    assert gain_at_budgets(params.astype(float), accuracy, params, [0.5]) == 2


def test_noise_share_is_what_other_seeds_change():
    means = RNG.normal(size=500)
    scores = means + 0.5 * RNG.normal(size=(4, 500))
    assert noise_share(np.tile(means, (3, 1))) == pytest.approx(0, abs=1e-9)
    assert noise_share(scores) == pytest.approx(0.25 / 1.25, abs=0.04)
    shifted = scores + np.array([[0.0], [5.0], [-9.0], [1.0]])  # what moves all alike moves no rank
    assert noise_share(shifted) == pytest.approx(noise_share(scores))


def sizes(params, flops=None, shapes=None):
    count = len(params)
    return Sizes(np.array(params), np.array(flops or params), np.arange(count) if shapes is None else np.array(shapes))


def test_tau_at_equal_size_is_of_pairs_that_differ_by_a_tenth_at_most():
    """Against a loop over pairs."""
    params = RNG.integers(100, 400, 40)
    score, accuracy = RNG.integers(0, 6, 40).astype(float), RNG.integers(0, 9, 40).astype(float)
    signs, seen = [], set()
    for i in range(40):
        for j in range(i):
            sign = np.sign(score[i] - score[j]) * np.sign(accuracy[i] - accuracy[j])
            if max(params[i], params[j]) <= 1.1 * min(params[i], params[j]) and sign:
                signs.append(sign)
                seen |= {i, j}
    found = at_equal_size(score, accuracy, sizes(params))
    assert (found.num_equal_pairs, found.num_equal_shapes) == (len(signs), len(seen))
    assert found.kendall_equal_params == pytest.approx(np.mean(signs))
    low, high = found.kendall_equal_params_ci95
    assert low < found.kendall_equal_params < high


def test_a_score_that_is_size_says_nothing_at_equal_size():
    params = [100, 105, 200, 210, 400, 420]
    accuracy = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 6.0])
    by_size = at_equal_size(np.array(params, float), accuracy, sizes(params, [1, 10, 100, 1000, 10_000, 100_000]))
    assert by_size.kendall_equal_params == pytest.approx(1 / 3)
    assert (by_size.kendall_equal_flops, by_size.kendall_equal_flops_ci95, by_size.num_equal_flops_pairs) == (
        None,
        None,
        0,
    )
    in_steps = at_equal_size(np.floor(np.log2(params)), accuracy, sizes(params))
    assert (in_steps.kendall_equal_params, in_steps.num_equal_pairs, in_steps.num_equal_shapes) == (None, 0, 0)


def test_copies_of_a_shape_do_not_narrow_the_interval():
    score, accuracy = np.tile(RNG.normal(size=12), 8), np.tile(RNG.normal(size=12), 8) + 0.01 * RNG.normal(size=96)
    params = np.full(96, 100)
    as_copies = at_equal_size(score, accuracy, sizes(params, shapes=np.tile(np.arange(12), 8)))
    as_others = at_equal_size(score, accuracy, sizes(params))
    wide, narrow = (np.ptp(each.kendall_equal_params_ci95) for each in (as_copies, as_others))
    assert as_copies.kendall_equal_params == as_others.kendall_equal_params
    assert wide > 1.5 * narrow
    assert (as_copies.num_equal_shapes, as_others.num_equal_shapes) == (12, 96)
