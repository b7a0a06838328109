"""A run as one HTML file that needs no other, and its figures: the search, and what refine measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tvt_ray.refining.learned import AsGood, Learned, Measurement
from tvt_ray.refining.surrogate import Prediction
from tvt_ray.report.html import BLUE, GREY, RED, drawn, page
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.ranking import Entry, Ranking
from tvt_ray.scoring.rows import Row, arch_of
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.vits import Space
from tvt_ray.vits.budget import format_count

NUM_LISTED = 20
PAIR = ("l2_norm", "attention_similarity")  # TVT's two readings, where both were read


@dataclass(frozen=True)
class Found:
    """What a fit found out, as tables of texts: rivals of the student, cuts of the teacher, ways to learn, bodies; and
    what it says of the labels.
    """

    advice: str | None = None
    rivals: Sequence[Sequence[str]] = ()
    cuts: Sequence[Sequence[str]] = ()
    ways: Sequence[Sequence[str]] = ()
    bodies: Sequence[Sequence[str]] = ()
    labels: Sequence[str] = ()


RIVAL_COLUMNS = ("", "test, %", "95 % interval", "student ahead by", "parameters", "MB", "ms")
CUT_COLUMNS = ("stages", "by cross-validation, %", "test, %", "parameters")
BODY_COLUMNS = ("architecture", "", "parameters", "validation, %", "log-likelihood", "behind, standard errors")
WAY_COLUMNS = (
    *("augmentation", "loss", "rate, decay, start"),
    *("validation, %", "log-likelihood", "behind, standard errors"),
)


def write_report(
    path: Location,
    rows: Sequence[Row],
    ranking: Ranking,
    config: RunConfig,
    learned: Learned | None = None,
    found: Found | None = None,
) -> None:
    """Writes report.html, and the figure beside it as report.png. Does nothing when no row has a score.

    `learned`: what trainings said, where they rank. `found`: what a fit found out beside the search.
    """
    if not ranking.scored:
        return
    figure, smallest = drawn(lambda: plot_search(ranking)), learned.as_good() if learned else None
    write_atomically(path.with_suffix(".png"), figure.light)
    prediction = learned.prediction if learned else None
    content = page(
        "run",
        title="Training-free ViT search",
        rows=rows,
        num_failed=sum(row.status != "ok" for row in rows),
        ranking=ranking,
        config=config,
        figure=figure,
        measured=drawn(lambda: plot_measured(learned, smallest)) if learned and learned.measurements else None,
        smallest=_smallest_line(smallest) if smallest else None,
        found=found,
        lessons=[lesson.sentence() for lesson in prediction.lessons] if prediction else (),
        length=prediction.epochs if prediction else None,
        rival_columns=RIVAL_COLUMNS,
        cut_columns=CUT_COLUMNS,
        way_columns=WAY_COLUMNS,
        body_columns=BODY_COLUMNS,
        **_table(ranking.top(NUM_LISTED), config.space),
    )
    write_atomically(path, content)


def _table(best: Sequence[Entry], space: Space) -> dict[str, Sequence[Sequence[str]]]:
    names = sorted(best[0].row.readings)
    lines = []
    for number, (row, score) in enumerate(((each.row, each.score) for each in best), 1):
        name = Markup("{}<br><code>{}</code>").format(space.describe(arch_of(row, space)), row.arch_id)
        counts = [f"{score:.4f}", format_count(row.params), format_count(row.flops)]
        readings = [f"{row.readings[name]:.5g}" if name in row.readings else "" for name in names]
        lines.append([str(number), name, *counts, *readings])
    return {"columns": ("#", "architecture", "score", "parameters", "FLOPs", *names), "lines": lines}


def plot_search(ranking: Ranking) -> Figure:
    """Score against FLOPs with the Pareto front; beside it TVT's two readings by score, where both are there."""
    scored = ranking.scored
    both = all(name in scored[0].row.readings for name in PAIR)
    figure, axes = _side_by_side(2 if both else 1)
    _plot_front(axes[0], ranking)
    if both:
        _plot_pair(figure, axes[1], scored)
    return figure


def _side_by_side(count: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(11 if count > 1 else 6.5, 4.2))
    return figure, figure.subplots(1, count, squeeze=False)[0]


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


def _smallest_line(found: AsGood) -> str:
    row = found.entry.row
    return (
        f"{row.arch_id}, with {format_count(row.params)} parameters, {found.sentence()}, and none smaller is "
        f"(distill.py --within {found.points:g} trains it)"
    )


def plot_measured(learned: Learned, smallest: AsGood | None = None) -> Figure:
    """Validation accuracy by epoch of every training; beside it the prediction for all rows, where there is one."""
    figure, axes = _side_by_side(2 if learned.prediction else 1)
    _plot_curves(axes[0], learned)
    if learned.prediction:
        _plot_prediction(axes[1], learned, learned.prediction, smallest)
    return figure


def _plot_curves(axis: Axes, learned: Learned) -> None:
    first = learned.ranking.top(1)[0].row.arch_id
    trainings: dict[tuple[str, int], list[Measurement]] = {}  # by student and seed, in the order of epochs
    for each in sorted(learned.measurements, key=lambda each: each.epochs):
        trainings.setdefault((each.arch_id, each.seed), []).append(each)
    for (arch_id, _), training in sorted(trainings.items()):
        chosen = arch_id == first
        epochs, accuracies = [each.epochs for each in training], [each.val_acc for each in training]
        color, width, order = (BLUE, 2, 3) if chosen else (GREY, 1, 2)
        axis.plot(epochs, accuracies, "o-", ms=2, lw=width, color=color, zorder=order)
    for rung in learned.rungs:
        axis.axvline(rung, color=RED, lw=0.6, ls=":")
    axis.set(xlabel="epochs (rungs dotted; the first choice in blue)", ylabel="validation accuracy, %")


def _plot_prediction(axis: Axes, learned: Learned, prediction: Prediction, smallest: AsGood | None) -> None:
    params = np.array([each.row.params for each in learned.entries]) / 1e6
    measured = sorted({each.index for each in learned.observations})
    low, high = prediction.interval()
    mean = prediction.mean
    axis.scatter(params, mean, s=6, color=GREY, linewidths=0, label="predicted")
    spans = np.abs(np.stack([low, high])[:, measured] - mean[measured])
    axis.errorbar(params[measured], mean[measured], spans, fmt="o", ms=3, lw=0.8, color=RED, label="trained, 90 %")
    best = learned.index[learned.ranking.top(1)[0].row.arch_id]
    axis.plot(params[best], mean[best], "*", ms=14, color=BLUE, label="best")
    if smallest is not None:
        place = params[learned.index[smallest.entry.row.arch_id]], smallest.entry.score
        axis.plot(*place, "D", ms=8, mfc="none", mew=1.5, color=BLUE, label=f"smallest within {smallest.points:g}")
    axis.set(xlabel="parameters, millions", ylabel=f"validation accuracy after {learned.rungs[-1]} epochs, %")
    axis.legend(loc="lower right")
