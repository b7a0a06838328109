"""The plot of a run, and how all plots look."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tvt_ray.scoring.ranking import Entry, Ranking

GREY, RED, BLUE = "#9aa5b1", "#d1495b", "#00798c"
INK = "#1f2933"  # of text and axes
PAIR = ("l2_norm", "attention_similarity")  # TVT's two readings, where both were read


def plot_search(ranking: Ranking) -> Figure:
    """Score against FLOPs with the Pareto front; beside it TVT's two readings by score, where both are there."""
    scored = ranking.scored
    both = all(name in scored[0].row.readings for name in PAIR)
    figure = Figure(figsize=(11 if both else 6.5, 4.2))
    axes = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
    _plot_front(axes[0], ranking)
    if both:
        _plot_pair(figure, axes[1], scored)
    return figure


def _plot_front(axis: Axes, ranking: Ranking) -> None:
    def points(entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
        return [each.row.flops / 1e6 for each in entries], [each.score for each in entries]

    axis.scatter(*points(ranking.scored), s=6, color=GREY, linewidths=0, label="scored")
    axis.plot(*points(ranking.front()), "o-", drawstyle="steps-post", ms=3, lw=1, color=RED, label="Pareto front")
    axis.plot(*points(ranking.top(1)), "*", ms=14, color=BLUE, label="best")
    axis.set(xlabel="MFLOPs (multiply-accumulates per image)", ylabel=f"score ({ranking.by})")
    axis.legend()


def _plot_pair(figure: Figure, axis: Axes, scored: Sequence[Entry]) -> None:
    x, y = ([each.row.readings[name] for each in scored] for name in PAIR)
    points = axis.scatter(x, y, c=[each.score for each in scored], s=6, linewidths=0, cmap="viridis")
    axis.set(xlabel="l2_norm (student capability)", ylabel="attention_similarity (teacher-aware)")
    figure.colorbar(points, ax=axis, label="score")


def figure_png(draw: Callable[[], Figure], ink: str = INK, background: str = "white") -> bytes:
    """What `draw` makes, in this project's style, as a PNG file's content. Matplotlib's settings stay as they are."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_style(ink, background)):
        draw().savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _style(ink: str, background: str) -> dict[str, object]:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    filled = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    plain = {"figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}
    return {**plain, "legend.frameon": False, **dict.fromkeys(inked, ink), **dict.fromkeys(filled, background)}
