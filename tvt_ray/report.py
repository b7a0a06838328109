"""What people would rather look at: plots and a table of a run's rows, as one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from tvt_ray.bench.rank import Scored, kendall_tau
from tvt_ray.config import RunConfig
from tvt_ray.search.rows import Row
from tvt_ray.search.selection import pareto_front, top_k
from tvt_ray.space.base import format_count
from tvt_ray.storage import Location, write_atomically

NUM_LISTED = 20


def plot_search(rows: Sequence[Row], score: str) -> Figure:
    """Score against FLOPs with the Pareto front, and t against s coloured by score."""
    scored = [row for row in rows if row.score is not None]
    scores = np.array([row.score for row in scored], float)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter([row.flops / 1e6 for row in scored], scores, s=6, color="#9aa5b1", linewidths=0, label="scored")
    front, best = pareto_front(scored), top_k(scored, 1)
    left.plot(
        [r.flops / 1e6 for r in front],
        [r.score or 0 for r in front],
        "o-",
        drawstyle="steps-post",
        ms=3,
        lw=1,
        color="#d1495b",
        label="Pareto front",
    )
    left.plot([best[0].flops / 1e6], [best[0].score or 0], "*", ms=14, color="#00798c", label="best")
    left.set(xlabel="MFLOPs (multiply-accumulates per image)", ylabel=f"score ({score})")
    left.legend(frameon=False)
    components = [(row.components["s"], row.components["t"]) for row in scored]
    points = right.scatter(*np.array(components, float).T, c=scores, s=6, linewidths=0, cmap="viridis")
    right.set(xlabel="s (student capability: sum of weight norms)", ylabel="t (teacher-aware: attention similarity)")
    figure.colorbar(points, ax=right, label="score")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def figure_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def write_report(path: Location, rows: Sequence[Row], config: RunConfig) -> None:
    """Writes report.html, and the figure beside it as report.png. Does nothing when no row has a score."""
    best = top_k(rows, NUM_LISTED)
    if not best:
        return
    png = figure_png(plot_search(rows, config.score.name))
    write_atomically(path.with_suffix(".png"), png)
    failed = sum(row.status != "ok" for row in rows)
    facts = {
        "dataset": config.data.name,
        "teacher": config.teacher.name,
        "space": f"{config.space.name}, {config.space.image_size} pixels, {config.space.size():,} architectures",
        "budget": str(config.budget),
        "searcher": config.search.searcher,
        "scored": f"{len(rows) - failed:,}" + (f", {failed:,} failed" if failed else ""),
        "seed": str(config.seed),
    }
    items = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    image = base64.b64encode(png).decode()
    page = _PAGE.format(items=items, image=image, table=_table(best), config=html.escape(config.to_yaml()))
    write_atomically(path, page.encode())


def _table(best: Sequence[Row]) -> str:
    names = sorted(best[0].components)
    head = "".join(f"<th>{name}</th>" for name in ("#", "architecture", "score", "parameters", "FLOPs", *names))
    lines = []
    for rank, row in enumerate(best, 1):
        numbers = [f"{row.score:.4f}", format_count(row.params), format_count(row.flops)]
        cells = [str(rank), html.escape(row.arch_id), *numbers, *[f"{row.components[name]:.5g}" for name in names]]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def write_ranking(folder: Path, statistics: Sequence[Mapping[str, Any]], scored: Sequence[Scored]) -> None:
    """ranking.parquet (statistics), scores.parquet (architectures) and a scatter plot per space and column."""
    _write_parquet(folder / "ranking.parquet", list(statistics))
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
        for column in dict.fromkeys(entry["column"] for entry in statistics):
            if column in one.truth.columns:
                figure = plot_ranking(one, column)
                write_atomically(folder / f"{one.truth.space.name}-{column}.png", figure_png(figure))


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
    figure = Figure(figsize=(3.4 * per_row + 0.8, 3.1 * num_rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(num_rows, per_row, sharey=True)).ravel()
    for axis, name in zip(axes, names, strict=False):
        scores = one.scores[name].mean(0)
        tau = kendall_tau(scores, accuracy)
        points = axis.scatter(scores, accuracy, c=params, s=10, linewidths=0, cmap="viridis")
        axis.set(xlabel=name, title="constant" if tau is None else f"Kendall's tau {tau:.2f}")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis in axes[::per_row]:
        axis.set_ylabel(f"{column} (%)")
    figure.colorbar(points, ax=axes, label="million parameters")
    return figure


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>tvt_ray search</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #1f2933 }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1.5em }} dt {{ color: #66788a }} dd {{ margin: 0 }}
img {{ width: 100% }} table {{ border-collapse: collapse; width: 100% }} pre {{ background: #f5f7fa; padding: 1em }}
td, th {{ text-align: right; padding: .2em .6em; border-bottom: 1px solid #e4e7eb }}
td:nth-child(2), th:nth-child(2) {{ text-align: left }}
</style><h1>Training-free ViT search</h1><dl>{items}</dl>
<img alt="score against FLOPs, and t against s" src="data:image/png;base64,{image}">
<h2>Best architectures</h2>{table}<h2>Config</h2><pre>{config}</pre></html>
"""
