"""How well a score ranks architectures whose trained accuracy is known: correlations, regret, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
NUM_RESAMPLES = 1000
MIN_ARCHS = 3  # fewer cannot be ranked


@dataclass(frozen=True)
class Agreement:
    """A score against accuracies: correlations with 95 % intervals, and what following the score costs."""

    n: int
    kendall: float | None  # tau-b; None where the score or the accuracy is constant
    kendall_ci95: tuple[float, float] | None
    spearman: float | None
    spearman_ci95: tuple[float, float] | None
    pearson: float | None
    pearson_ci95: tuple[float, float] | None
    top1_regret: float  # percentage points between the best accuracy and that of the score's first choice
    top5_regret: float  # … of the best among the score's first five
    top1_gain: float  # percentage points between the score's first choice and the median architecture


def agreement(scores: Floats, accuracies: Floats, seed: int = 0) -> Agreement:
    """Scores (n,), higher meant to be better, against accuracies (n,) in percent.

    Intervals are percentiles of a bootstrap over architectures, 1,000 resamples. Where scores tie, the worse
    architecture counts as chosen first. Raises ValueError for fewer than three architectures.
    """
    n = len(scores)
    if n < MIN_ARCHS:
        raise ValueError(f"{n} architectures cannot be ranked; {MIN_ARCHS} are the least")
    best, chosen = accuracies.max(), _in_order_of_choice(scores, accuracies)
    draws = np.random.default_rng(seed).integers(0, n, (NUM_RESAMPLES, n))
    x, y = scores[draws], accuracies[draws]
    ranks_x, ranks_y = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    return Agreement(
        n=n,
        kendall=kendall_tau(scores, accuracies),
        kendall_ci95=_interval(kendall_resampled(scores, accuracies, draws)),
        spearman=_correlation(stats.spearmanr, scores, accuracies),
        spearman_ci95=_interval(_row_correlations(ranks_x, ranks_y)),
        pearson=_correlation(stats.pearsonr, scores, accuracies),
        pearson_ci95=_interval(_row_correlations(x, y)),
        top1_regret=float(best - chosen[0]),
        top5_regret=float(best - chosen[:5].max()),
        top1_gain=float(chosen[0] - np.median(accuracies)),
    )


def kendall_tau(scores: Floats, accuracies: Floats) -> float | None:
    """Kendall's tau-b of scores (n,) and accuracies (n,); None where one of them is constant."""
    return _correlation(stats.kendalltau, scores, accuracies)


EQUAL = 1.1  # two architectures are of equal size where the larger is at most so many times the smaller


@dataclass(frozen=True)
class EqualSize:
    """A score against accuracies within pairs of equal size: what it knows beyond size.

    tau is the share of pairs that the score puts in the accuracies' order, less that of those it puts the other way;
    pairs that tie in either are left out. Intervals hold 95 % of 1,000 resamples of shapes, since pairs share
    architectures, and architectures of one shape are copies to a score.
    """

    kendall_equal_params: float | None  # None: there is no such pair
    kendall_equal_params_ci95: tuple[float, float] | None
    num_equal_pairs: int  # of equal parameters, without ties
    num_equal_shapes: int  # distinct ones in those pairs
    kendall_equal_flops: float | None
    kendall_equal_flops_ci95: tuple[float, float] | None
    num_equal_flops_pairs: int


@dataclass(frozen=True)
class Sizes:
    """What architectures cost, and which are of one shape: (n,) each."""

    params: NDArray[np.int64]
    flops: NDArray[np.int64]
    shapes: NDArray[np.int64]  # numbers

    def of(self, rows: NDArray[Any]) -> Sizes:
        """Of some architectures."""
        return Sizes(self.params[rows], self.flops[rows], self.shapes[rows])


def at_equal_size(scores: Floats, accuracies: Floats, sizes: Sizes, seed: int = 0) -> EqualSize:
    """Scores (n,), higher meant to be better, against accuracies (n,), within pairs of equal parameters and FLOPs."""
    same_params, same_flops = (_pairs(cost, scores, accuracies) for cost in (sizes.params, sizes.flops))
    times = _resampled(sizes.shapes, seed)
    by_params, by_flops = (_tau_of(same, times) for same in (same_params, same_flops))
    return EqualSize(
        kendall_equal_params=by_params[0],
        kendall_equal_params_ci95=by_params[1],
        num_equal_pairs=int(np.abs(same_params).sum()) // 2,
        num_equal_shapes=len(np.unique(sizes.shapes[same_params.any(1)])),
        kendall_equal_flops=by_flops[0],
        kendall_equal_flops_ci95=by_flops[1],
        num_equal_flops_pairs=int(np.abs(same_flops).sum()) // 2,
    )


def _pairs(costs: NDArray[np.int64], scores: Floats, accuracies: Floats) -> Floats:
    """(n, n): of pairs of equal cost 1 where score and accuracy agree, -1 where they do not; 0 elsewhere."""
    logs = np.log(costs)
    equal = np.abs(logs[:, None] - logs[None]) <= np.log(EQUAL) + 1e-12
    signs = [np.sign(values[:, None] - values[None]) for values in (scores, accuracies)]
    return np.asarray(equal * signs[0] * signs[1])


def _resampled(shapes: NDArray[np.int64], seed: int) -> Floats:
    """(resamples, n): how often each architecture is there where shapes are drawn with replacement."""
    numbers, places = np.unique(shapes, return_inverse=True)
    draws = np.random.default_rng(seed).integers(0, len(numbers), (NUM_RESAMPLES, len(numbers)))
    return _times(draws, len(numbers))[:, places]


def _times(draws: NDArray[np.int64], count: int) -> Floats:
    """(resamples, count): how often each number is in a row of indices."""
    return np.apply_along_axis(np.bincount, 1, draws, minlength=count).astype(np.float64)


def _tau_of(pairs: Floats, times: Floats) -> tuple[float | None, tuple[float, float] | None]:
    """The mean of the pairs that count, and its interval over resamples."""
    if not pairs.any():
        return None, None
    agreeing, counted = (((times @ each) * times).sum(1) for each in (pairs, np.abs(pairs)))
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = np.asarray(agreeing / counted)
    return float(pairs.sum() / np.abs(pairs).sum()), _interval(resampled)


def _correlation(function: Callable[[Floats, Floats], Any], scores: Floats, accuracies: Floats) -> float | None:
    if np.ptp(scores) == 0 or np.ptp(accuracies) == 0:
        return None
    value = float(function(scores, accuracies)[0])
    return value if math.isfinite(value) else None


def _in_order_of_choice(scores: Floats, accuracies: Floats) -> Floats:
    """The accuracies, highest score first; of those that tie, the worst first."""
    return accuracies[np.lexsort((accuracies, -scores))]


def _interval(samples: Floats) -> tuple[float, float] | None:
    finite = samples[np.isfinite(samples)]
    if len(finite) < len(samples) / 2:
        return None
    low, high = np.percentile(finite, (2.5, 97.5))
    return float(low), float(high)


def kendall_resampled(x: Floats, y: Floats, draws: NDArray[np.int64]) -> Floats:
    """Kendall's tau-b of each resample (rows of indices), all at once.

    A resample is a weight per architecture: tau-b is a ratio of sums over pairs, each pair weighted by the product.
    """
    weights = _times(draws, len(x))
    sign_x, sign_y = (np.sign(values[:, None] - values[None]) for values in (x, y))
    concordant, pairs_x, pairs_y = (
        ((weights @ matrix) * weights).sum(1) for matrix in (sign_x * sign_y, np.abs(sign_x), np.abs(sign_y))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(concordant / np.sqrt(pairs_x * pairs_y))


def _row_correlations(x: Floats, y: Floats) -> Floats:
    """Pearson's r of each pair of rows."""
    x, y = (rows - rows.mean(1, keepdims=True) for rows in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1)))


def partial_correlation(
    x: Floats, y: Floats, controls: Sequence[Floats], seed: int = 0
) -> tuple[float, float, float] | None:
    """Spearman's partial correlation of x and y given the controls, with a bootstrap 95 % interval: (r, low, high).

    Ranks of x and y after what the ranks of the controls explain linearly is taken out. None where that is all.
    """
    draws = np.random.default_rng(seed).integers(0, len(x), (NUM_RESAMPLES, len(x)))
    r = _partial(x, y, *controls)
    interval = _interval(np.array([_partial(*(values[rows] for values in (x, y, *controls))) for rows in draws]))
    return (r, *interval) if interval and math.isfinite(r) else None


def _partial(x: Floats, y: Floats, *controls: Floats) -> float:
    ranks = [stats.rankdata(values) for values in (x, y, *controls)]
    design = np.column_stack([np.ones(len(x)), *ranks[2:]])
    left = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in ranks[:2]]
    norms = [np.linalg.norm(values) for values in left]
    return float(left[0] @ left[1] / (norms[0] * norms[1])) if min(norms) > 1e-9 else math.nan


def gain_at_budgets(scores: Floats, accuracies: Floats, params: NDArray[np.int64], quantiles: Sequence[float]) -> float:
    """What a user gains: the accuracy of the score's first choice within a parameter budget, less the median within it.

    Percentage points, mean over budgets at the given quantiles of the table's parameters.
    """
    gains = []
    for budget in np.quantile(params, quantiles):
        inside = params <= budget
        first = _in_order_of_choice(scores[inside], accuracies[inside])[0]
        gains.append(first - np.median(accuracies[inside]))
    return float(np.mean(gains))


def noise_share(scores: Floats) -> float:
    """The part of scores' variance over architectures that is other seeds' doing: scores (seeds, n), two seeds or more.

    What a seed adds to all architectures alike moves no rank and is taken out first. Then the mean variance of an
    architecture over seeds, over that plus the variance between architectures' means, the latter less what averaging
    leaves of the noise (two-way analysis of variance).
    """
    scores = scores - scores.mean(1, keepdims=True)
    within = scores.var(0, ddof=1).mean()
    between = max(scores.mean(0).var(ddof=1) - within / len(scores), 0.0)
    return float(within / (within + between)) if within + between > 0 else 0.0
