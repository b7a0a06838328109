"""From rows to what the surrogate learns from: their shape in doublings, and their readings as normal scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from tvt_ray.scoring.rows import Row, arch_of
from tvt_ray.vits import Space

Floats = NDArray[np.float64]
FLAG, DOUBLING, PRESENCE = "has_", "doubling", "presence"  # what a step of a feature of the shape is
COUNTS = ("params", "flops")  # the depth is one of the shape's


@dataclass(frozen=True)
class FeatureTable:
    """Features of n rows, columns that differ between rows alone: those of the shape first, then the readings.

    A doubling counts the same whichever number is doubled: shape columns have one common scale, so that what hardly
    varies between the rows cannot explain much. Of a reading only the order is taken to mean something.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]  # in words: a step of what
    values: Floats  # (n, d): each column has mean 0; the mean square is 1 over the shape, and over each reading
    step: float  # so many units are 1 in a column of the shape
    num_shape: int  # columns that are of the shape

    def of(self, rows: NDArray[np.int64]) -> FeatureTable:
        """The same columns of some rows (k,)."""
        return replace(self, values=self.values[rows])

    @property
    def shape(self) -> Floats:
        """In units, less the mean: (n, num_shape)."""
        return self.values[:, : self.num_shape] * self.step

    @property
    def readings(self) -> Floats:
        """Normal scores: (n, d - num_shape)."""
        return self.values[:, self.num_shape :]


def feature_table(rows: Sequence[Row], space: Space) -> FeatureTable:
    """Of rows that were read. A reading that one of them lacks, or that never varies, is left out.

    Raises ValueError for no rows, and UsageError where one holds no architecture of the space.
    """
    if not rows:
        raise ValueError("features are of at least one row; got none")
    shape = _columns([space.features(arch_of(row, space)) for row in rows])
    names = [name for name in rows[0].values if name in rows[0].readings or name in COUNTS]
    readings = _columns([{name: row.values.get(name, np.nan) for name in names} for row in rows])
    return make_table(shape, readings)


def make_table(shape: Mapping[str, Floats], readings: Mapping[str, Floats]) -> FeatureTable:
    """From columns (n,) by name: `shape` in base-2 logarithms, `readings` as they are, higher meant to be better."""
    varied = {name: column - column.mean() for name, column in shape.items() if np.ptp(column) > 0}
    step = float(np.sqrt(np.mean([np.mean(column**2) for column in varied.values()]))) if varied else 1.0
    scores = {name: normal_scores(column) for name, column in readings.items() if np.ptp(column) > 0}  # not with NaN
    columns = [column / step for column in varied.values()] + list(scores.values())
    num_rows = len(next(iter([*shape.values(), *readings.values()])))
    return FeatureTable(
        names=(*varied, *scores),
        units=(
            *(PRESENCE if name.startswith(FLAG) else DOUBLING for name in varied),
            *["standard deviation"] * len(scores),
        ),
        values=np.column_stack(columns) if columns else np.zeros((num_rows, 0)),
        step=step,
        num_shape=len(varied),
    )


def normal_scores(values: Floats) -> Floats:
    """The order of values (n,) as quantiles of a normal distribution: mean 0, standard deviation 1; ties stay ties.

    Constant values become zeros.
    """
    quantiles = special.ndtri((stats.rankdata(values) - 0.5) / len(values))
    deviation = float(quantiles.std()) if np.ptp(values) > 0 else 0.0
    return np.asarray((quantiles - quantiles.mean()) / deviation) if deviation else np.zeros(len(values))


def _columns(records: Sequence[Mapping[str, float]]) -> dict[str, Floats]:
    return {name: np.array([record[name] for record in records], dtype=np.float64) for name in records[0]}
