"""How scores rank architectures whose trained accuracy is known, as tables: what `tvt rank` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvt_ray.judging.agreement import (
    Agreement,
    EqualSize,
    Floats,
    Sizes,
    agreement,
    at_equal_size,
    kendall_tau,
)
from tvt_ray.judging.truth import Scored
from tvt_ray.refining.surrogate import Observation, predict

MEASURED = "measured"  # what the surrogate is called where scores are


@dataclass(frozen=True)
class RankedColumn(EqualSize, Agreement):
    """A score against one accuracy column of one space's table."""

    space: str
    column: str
    proxy: str
    kendall_by_seed: tuple[float | None, ...]  # tau-b of each repetition; the others are of their mean


@dataclass(frozen=True)
class Noise:
    """How much of a score's spread over a space's architectures is other seeds' doing, 0 to 1."""

    space: str
    proxy: str
    noise_share: float


def mean_kendall(columns: Sequence[RankedColumn]) -> dict[str, float]:
    """By proxy, over columns; one on which tau is not defined counts as 0."""
    names = dict.fromkeys(entry.proxy for entry in columns)
    return {name: float(np.mean([each.kendall or 0.0 for each in columns if each.proxy == name])) for name in names}


def tabulate(
    scored: Sequence[Scored], columns: Sequence[str] | None, low: int | None = None, high: int | None = None
) -> tuple[RankedColumn, ...]:
    """Statistics of every space, column (None: all) and score, of architectures with `low` to `high` parameters.

    Raises UsageError where fewer than three are left.
    """
    entries = []
    for one in scored:
        inside = one.truth.within(low, high)
        one.truth.check_enough(low, high)
        sizes = _sizes(one).of(inside)
        for column in columns or one.truth.columns:
            accuracy = one.truth.accuracy(column)[inside]
            for name, values in one.scores.items():
                of_mean = _judged(values.mean(0)[inside], accuracy, sizes)
                by_seed = tuple(kendall_tau(each[inside], accuracy) for each in values)
                entries.append(
                    RankedColumn(
                        space=one.truth.space.name, column=column, proxy=name, kendall_by_seed=by_seed, **of_mean
                    )
                )
    return tuple(entries)


def _sizes(one: Scored) -> Sizes:
    return Sizes(one.truth.params, one.truth.flops, one.truth.shapes)


def _judged(scores: Floats, accuracy: Floats, sizes: Sizes) -> dict[str, Any]:
    """All statistics of a score, by the names of `RankedColumn`."""
    return {**vars(agreement(scores, accuracy)), **vars(at_equal_size(scores, accuracy, sizes))}


@dataclass(frozen=True)
class LabelRequest:
    """How many rows of a table are labelled, and how often others are drawn."""

    num_labels: int = 0  # 0: no surrogate
    num_draws: int = 20
    seed: int = 0


NO_LABELS = LabelRequest()


def judge_labelled(
    scored: Sequence[Scored],
    columns: Sequence[str] | None,
    labels: LabelRequest,
    min_params: int | None = None,
    max_params: int | None = None,
) -> tuple[tuple[RankedColumn, ...], tuple[RankedColumn, ...]]:
    """Of the surrogate, and of the score that it began with on the same rows: those without a label.

    Statistics of every space and column, means over draws; intervals hold 95 % of the draws. Rows are labelled and
    judged within the band of parameters. Raises UsageError where fewer than three are left.
    """
    measured, held_out = [], []
    for one in scored:
        learns_from = one.learns_from
        assert learns_from is not None  # scored for labels
        inside = one.truth.within(min_params, max_params)
        one.truth.check_enough(min_params, max_params, labels.num_labels)
        for column in columns or one.truth.columns:
            accuracy = one.truth.accuracy(column)[inside]
            pairs = [_judge(one, accuracy, inside, labels, draw) for draw in range(labels.num_draws)]
            by_surrogate, by_score = ([pair[i] for pair in pairs] for i in (0, 1))
            measured.append(_column(one, column, MEASURED, by_surrogate))
            held_out.append(_column(one, column, learns_from.score, by_score))
    return tuple(measured), tuple(held_out)


def _judge(
    one: Scored, accuracy: Floats, inside: NDArray[np.bool_], labels: LabelRequest, draw: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Surrogate and score on the rows that this draw leaves without a label."""
    learns_from = one.learns_from
    assert learns_from is not None  # scored for labels
    rng = np.random.default_rng([labels.seed, draw])
    prior, features = learns_from.prior[inside], learns_from.features.of(np.flatnonzero(inside))
    order = rng.permutation(len(accuracy))
    chosen, left = np.sort(order[: labels.num_labels]), np.sort(order[labels.num_labels :])
    observations = [Observation(int(row), 1, 0, float(accuracy[row])) for row in chosen]
    prediction = predict(features, prior, observations, epochs=1)
    assert prediction is not None  # there are labels enough
    sizes = _sizes(one).of(inside).of(left)
    by_surrogate, by_score = (_judged(each[left], accuracy[left], sizes) for each in (prediction.mean, prior))
    return by_surrogate, by_score


def _column(one: Scored, column: str, name: str, draws: Sequence[Mapping[str, Any]]) -> RankedColumn:
    """Means over draws; whole numbers where a statistic is a count."""
    statistics = {key: [draw[key] for draw in draws] for key in draws[0]}
    means: dict[str, Any] = {key: _mean(values) for key, values in statistics.items() if not key.endswith("_ci95")}
    counts = {key: round(means[key]) for key in means if key.startswith("num_")}
    ends = [key for key in statistics if key.endswith("_ci95")]
    intervals = {key: _spread(statistics[key.removesuffix("_ci95")]) for key in ends}
    return RankedColumn(
        **{**means, **counts, **intervals, "n": draws[0]["n"]},
        space=one.truth.space.name,
        column=column,
        proxy=name,
        kendall_by_seed=(),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Of the draws where the statistic is defined; None where it is in none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    known: Floats = np.array([value for value in values if value is not None])
    if not len(known):
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
