"""What a few labels are worth: the surrogate, trained on some rows of a table and judged on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvt_ray.errors import UsageError
from tvt_ray.judging.agreement import Agreement, Floats, agreement
from tvt_ray.judging.tables import RankedColumn
from tvt_ray.judging.truth import LearnsFrom, Scored
from tvt_ray.refining.halving import MIN_MEASURED
from tvt_ray.refining.surrogate import Observation, predict

MEASURED = "measured"  # what the surrogate is called where scores are
Interval = tuple[float, float]


@dataclass(frozen=True)
class LabelRequest:
    """How many rows of a table are labelled, and how often others are drawn."""

    num_labels: int = 0  # 0: no surrogate
    num_draws: int = 20
    seed: int = 0


NO_LABELS = LabelRequest()


@dataclass(frozen=True)
class LabelledColumns:
    """The surrogate, and the score that it began with on the same rows: those without a label."""

    measured: tuple[RankedColumn, ...]
    held_out: tuple[RankedColumn, ...]


def check_labels(labels: LabelRequest) -> None:
    """Raises UsageError for a number of labels that the surrogate does not learn from, or no draws."""
    if labels.num_labels != 0 and labels.num_labels < MIN_MEASURED:
        raise UsageError(f"--labels is 0, or at least {MIN_MEASURED}; got {labels.num_labels}")
    if labels.num_draws < 1:
        raise UsageError(f"--draws is at least 1; got {labels.num_draws}")


def judge_labelled(
    scored: Sequence[Scored],
    columns: Sequence[str] | None,
    labels: LabelRequest,
    min_params: int | None = None,
    max_params: int | None = None,
) -> LabelledColumns:
    """Statistics of every space and column, means over draws; intervals hold 95 % of the draws.

    Rows are labelled and judged within the band of parameters. Raises UsageError where fewer than three are left.
    """
    measured, held_out = [], []
    for one in scored:
        learns_from = one.learns_from
        assert learns_from is not None  # scored for labels
        inside = one.truth.within(min_params, max_params)
        one.truth.check_enough(min_params, max_params, labels.num_labels)
        for column in columns or one.truth.columns:
            accuracy = one.truth.accuracy(column)[inside]
            pairs = [_judge(learns_from, accuracy, inside, labels, draw) for draw in range(labels.num_draws)]
            by_surrogate, by_score = ([pair[i] for pair in pairs] for i in (0, 1))
            measured.append(_column(one, column, MEASURED, by_surrogate))
            held_out.append(_column(one, column, learns_from.score, by_score))
    return LabelledColumns(tuple(measured), tuple(held_out))


def _judge(
    learns_from: LearnsFrom, accuracy: Floats, inside: NDArray[np.bool_], labels: LabelRequest, draw: int
) -> tuple[Agreement, Agreement]:
    """Surrogate and score on the rows that this draw leaves without a label."""
    rng = np.random.default_rng([labels.seed, draw])
    prior, features = learns_from.prior[inside], learns_from.features.of(np.flatnonzero(inside))
    order = rng.permutation(len(accuracy))
    chosen, left = np.sort(order[: labels.num_labels]), np.sort(order[labels.num_labels :])
    observations = [Observation(int(row), 1, 0, float(accuracy[row])) for row in chosen]
    prediction = predict(features, prior, observations, epochs=1)
    assert prediction is not None  # check_labels
    return agreement(prediction.mean[left], accuracy[left]), agreement(prior[left], accuracy[left])


def _column(one: Scored, column: str, name: str, draws: Sequence[Agreement]) -> RankedColumn:
    statistics = {field.name: [getattr(draw, field.name) for draw in draws] for field in dataclasses.fields(Agreement)}
    means: dict[str, Any] = {key: _mean(values) for key, values in statistics.items() if not key.endswith("_ci95")}
    intervals: dict[str, Any] = {f"{key}_ci95": _spread(statistics[key]) for key in ("kendall", "spearman", "pearson")}
    return RankedColumn(
        **{**means, **intervals, "n": draws[0].n},
        space=one.truth.space.name,
        column=column,
        proxy=name,
        kendall_by_seed=(),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Of the draws where the statistic is defined; None where it is in none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _spread(values: Sequence[float | None]) -> Interval | None:
    known: Floats = np.array([value for value in values if value is not None])
    if not len(known):
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
