"""Scores of architectures whose trained accuracy is known, as tables of rank correlations: what `tvt rank` prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvt_ray.judging.agreement import Agreement, agreement, kendall_tau, noise_share
from tvt_ray.judging.truth import Scored


@dataclass(frozen=True)
class RankedColumn(Agreement):
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


@dataclass(frozen=True)
class RankTables:
    """How scores rank: within the band of parameters asked for, and then over the whole table beside it."""

    columns: tuple[RankedColumn, ...]
    whole_table: tuple[RankedColumn, ...]  # nothing where no band was asked for
    noise: tuple[Noise, ...]  # nothing where there was one seed

    def mean_kendall(self) -> dict[str, float]:
        """By proxy, over all spaces and columns; a column on which tau is not defined counts as 0."""
        return mean_kendall(self.columns)


def mean_kendall(columns: Sequence[RankedColumn]) -> dict[str, float]:
    """By proxy, over columns; one on which tau is not defined counts as 0."""
    names = dict.fromkeys(entry.proxy for entry in columns)
    return {name: float(np.mean([each.kendall or 0.0 for each in columns if each.proxy == name])) for name in names}


def tabulate(
    scored: Sequence[Scored], columns: Sequence[str] | None, min_params: int | None, max_params: int | None
) -> RankTables:
    """Statistics of every space, column (None: all) and score. Raises UsageError where fewer than three are left."""
    banded = min_params is not None or max_params is not None
    return RankTables(
        columns=_tabulate(scored, columns, min_params, max_params),
        whole_table=_tabulate(scored, columns, None, None) if banded else (),
        noise=tuple(
            Noise(one.truth.space.name, name, noise_share(values))
            for one in scored
            for name, values in one.scores.items()
            if len(values) > 1
        ),
    )


def _tabulate(
    scored: Sequence[Scored], columns: Sequence[str] | None, low: int | None, high: int | None
) -> tuple[RankedColumn, ...]:
    entries = []
    for one in scored:
        inside = one.truth.within(low, high)
        one.truth.check_enough(low, high)
        for column in columns or one.truth.columns:
            accuracy = one.truth.accuracy(column)[inside]
            for name, values in one.scores.items():
                of_mean = dataclasses.asdict(agreement(values.mean(0)[inside], accuracy))
                by_seed = tuple(kendall_tau(each[inside], accuracy) for each in values)
                entries.append(
                    RankedColumn(
                        space=one.truth.space.name, column=column, proxy=name, kendall_by_seed=by_seed, **of_mean
                    )
                )
    return tuple(entries)
