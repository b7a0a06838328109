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
    weights = np.apply_along_axis(np.bincount, 1, draws, minlength=len(x)).astype(np.float64)
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
