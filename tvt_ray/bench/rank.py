"""How well a score ranks architectures whose trained accuracy is known: correlations, regret, and their intervals."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tvt_ray.errors import UsageError
from tvt_ray.space import SPACES, Arch, Space, as_space

Floats = NDArray[np.float64]

NUM_RESAMPLES = 1000
ACCURACY_SUFFIX = "_acc"
PARAMS_PREFIX = "params"
MIN_ARCHS = 3  # fewer cannot be ranked


@dataclass(frozen=True)
class Trained:
    """One line of a ground-truth file."""

    arch: Arch
    arch_id: str
    params: int  # as the file gives them, else by arithmetic
    accuracies: Mapping[str, float]  # percent, by the file's column names


@dataclass(frozen=True)
class GroundTruth:
    """The lines of one space; every accuracy column is there for every architecture."""

    space: Space
    entries: tuple[Trained, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.entries[0].accuracies)

    def accuracy(self, column: str) -> Floats:
        return np.array([entry.accuracies[column] for entry in self.entries])

    def within(self, min_params: int | None, max_params: int | None) -> NDArray[np.bool_]:
        """Which entries lie inside a band of parameters, both ends included."""
        params = np.array([entry.params for entry in self.entries])
        return (params >= (min_params or 0)) & (params <= (math.inf if max_params is None else max_params))


def read_ground_truth(path: Path, configured: Space, num_classes: int) -> list[GroundTruth]:
    """Reads JSON lines: `space`, `arch`, and one or more accuracy columns named *_acc.

    Lines belong to the configured space if it holds all their architectures, else to the published space of that name.
    Raises UsageError that names the line and what is wrong with it.
    """
    if not path.is_file():
        raise UsageError(f"there is no ground-truth file {path}")
    by_space: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.strip():
            where = f"{path}, line {number}"
            line = _parse(text, where)
            by_space.setdefault(_space_name(line, configured, where), []).append((where, line))
    if not by_space:
        raise UsageError(f"{path} has no lines")
    return [_read_space(name, lines, configured, num_classes) for name, lines in by_space.items()]


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}") from None
    if not isinstance(line, dict) or not isinstance(line.get("arch"), dict):
        raise UsageError(
            f"{where}: a line is an object with the keys space, arch and accuracies named *{ACCURACY_SUFFIX}"
        )
    return line


def _space_name(line: Mapping[str, Any], configured: Space, where: str) -> str:
    name = line.get("space", configured.name)
    if not isinstance(name, str) or name not in SPACES:
        raise UsageError(f"{where}: unknown search space {name!r}; choices: {', '.join(SPACES)}")
    return name


def _read_space(
    name: str, lines: Sequence[tuple[str, dict[str, Any]]], configured: Space, num_classes: int
) -> GroundTruth:
    published: Space = as_space(SPACES[name]())
    problem: UsageError | None = None
    for space in (configured, published) if configured.name == name else (published,):
        try:
            entries = [_read_entry(where, line, space, num_classes) for where, line in lines]
        except UsageError as error:
            problem = problem or error
            continue
        _check_columns(entries, lines)
        return GroundTruth(space, tuple(entries))
    assert problem is not None
    raise problem


def _read_entry(where: str, line: Mapping[str, Any], space: Space, num_classes: int) -> Trained:
    try:
        arch = space.from_json(line["arch"])
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from None
    accuracies = {
        key: float(value)
        for key, value in line.items()
        if key.endswith(ACCURACY_SUFFIX) and isinstance(value, numbers.Real) and math.isfinite(value)
    }
    given = [v for key, v in line.items() if key.startswith(PARAMS_PREFIX) and isinstance(v, int | float)]
    params = int(given[0]) if given else space.cost(arch, num_classes).params
    return Trained(arch, space.arch_id(arch), params, accuracies)


def _check_columns(entries: Sequence[Trained], lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    first = entries[0].accuracies.keys()
    if not first:
        raise UsageError(f"{lines[0][0]} has no accuracy: a column named *{ACCURACY_SUFFIX}, in percent")
    for entry, (where, _) in zip(entries, lines, strict=True):
        if entry.accuracies.keys() != first:
            missing = sorted(first ^ entry.accuracies.keys())
            raise UsageError(f"{where}: all lines have the same accuracy columns; {missing[0]} is not in all")
    seen: dict[str, str] = {}
    for entry, (where, _) in zip(entries, lines, strict=True):
        if entry.arch_id in seen:
            raise UsageError(f"{where} repeats the architecture of {seen[entry.arch_id]}")
        seen[entry.arch_id] = where


@dataclass(frozen=True)
class Scored:
    """The architectures of one space with their accuracies and, by proxy, their scores (seeds, n)."""

    truth: GroundTruth
    scores: Mapping[str, Floats]


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
