"""Tables and scatter plots of how scores rank, as files."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from tvt_ray.judging.agreement import kendall_tau
from tvt_ray.judging.tables import RankedColumn
from tvt_ray.judging.truth import Scored
from tvt_ray.report.html import figure_png
from tvt_ray.storage.locations import write_atomically


def write_tables(folder: Path, statistics: Sequence[RankedColumn], scored: Sequence[Scored]) -> None:
    """ranking.parquet (statistics), scores.parquet (architectures) and a scatter plot per space and column."""
    _write_parquet(folder / "ranking.parquet", [dataclasses.asdict(entry) for entry in statistics])
    _write_parquet(
        folder / "scores.parquet",
        [
            {
                "space": one.truth.space.name,
                "arch_id": entry.arch_id,
                "params": entry.params,
                **entry.accuracies,
                **{name: float(values.mean(0)[i]) for name, values in one.scores.items()},
            }
            for one in scored
            for i, entry in enumerate(one.truth.entries)
        ],
    )
    for one in scored:
        for column in dict.fromkeys(entry.column for entry in statistics):
            if column in one.truth.columns:
                name = re.sub(r"[^\w.-]", "_", f"{one.truth.space.name}-{column}.png")
                write_atomically(folder / name, figure_png(functools.partial(plot_ranking, one, column)))


def _write_parquet(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    names = dict.fromkeys(name for record in records for name in record)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [record.get(name) for record in records] for name in names}), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def plot_ranking(one: Scored, column: str) -> Figure:
    """Accuracy against each score, coloured by parameters."""
    names, accuracy = list(one.scores), one.truth.accuracy(column)
    params = np.array([entry.params for entry in one.truth.entries]) / 1e6
    per_row = min(4, len(names))
    num_rows = -(-len(names) // per_row)
    figure = Figure(figsize=(3.4 * per_row + 0.8, 3.1 * num_rows))
    axes = np.atleast_1d(figure.subplots(num_rows, per_row, sharey=True)).ravel()
    for axis, name in zip(axes, names, strict=False):
        scores = one.scores[name].mean(0)
        tau = kendall_tau(scores, accuracy)
        points = axis.scatter(scores, accuracy, c=params, s=10, linewidths=0, cmap="viridis")
        axis.set(xlabel=name, title="constant" if tau is None else f"Kendall's tau {tau:.2f}")
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis in axes[::per_row]:
        axis.set_ylabel(f"{column} (%)")
    figure.colorbar(points, ax=axes, label="million parameters")
    return figure
