"""Plots of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tvt_ray.scoring.ranking import Entry, Ranking

GREY, RED, BLUE = "#9aa5b1", "#d1495b", "#00798c"
PAIR = ("l2_norm", "attention_similarity")  # TVT's two readings, where both were read


def plot_search(ranking: Ranking) -> Figure:
    """Score against FLOPs with the Pareto front; beside it TVT's two readings by score, where both are there."""
    scored = ranking.scored
    both = all(name in scored[0].row.readings for name in PAIR)
    figure = Figure(figsize=(11 if both else 6.5, 4.2), layout="constrained")
    axes = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
    _plot_front(axes[0], ranking)
    if both:
        _plot_pair(figure, axes[1], scored)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _plot_front(axis: Axes, ranking: Ranking) -> None:
    def points(entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
        return [each.row.flops / 1e6 for each in entries], [each.score for each in entries]

    axis.scatter(*points(ranking.scored), s=6, color=GREY, linewidths=0, label="scored")
    axis.plot(*points(ranking.front()), "o-", drawstyle="steps-post", ms=3, lw=1, color=RED, label="Pareto front")
    axis.plot(*points(ranking.top(1)), "*", ms=14, color=BLUE, label="best")
    axis.set(xlabel="MFLOPs (multiply-accumulates per image)", ylabel=f"score ({ranking.by})")
    axis.legend(frameon=False)


def _plot_pair(figure: Figure, axis: Axes, scored: Sequence[Entry]) -> None:
    x, y = ([each.row.readings[name] for each in scored] for name in PAIR)
    points = axis.scatter(x, y, c=[each.score for each in scored], s=6, linewidths=0, cmap="viridis")
    axis.set(xlabel="l2_norm (student capability)", ylabel="attention_similarity (teacher-aware)")
    figure.colorbar(points, ax=axis, label="score")


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
