"""What refine measured, as figures: curves of students, and what they predict for all rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tvt_ray.refining.learned import Learned
from tvt_ray.report.figures import BLUE, GREY, RED
from tvt_ray.scoring.measurements import Measurement


def plot_measured(learned: Learned) -> Figure:
    """Validation accuracy by epoch of every training; beside it the prediction for all rows, where there is one."""
    prediction = learned.prediction
    figure = Figure(figsize=(11 if prediction else 6.5, 4.2))
    axes = figure.subplots(1, 2 if prediction else 1, squeeze=False)[0]
    _plot_curves(axes[0], learned)
    if prediction:
        _plot_prediction(axes[1], learned)
    return figure


def _plot_curves(axis: Axes, learned: Learned) -> None:
    first = learned.ranking.top(1)[0].row.arch_id
    for (arch_id, _), training in sorted(_trainings(learned).items()):
        chosen = arch_id == first
        epochs, accuracies = [each.epochs for each in training], [each.val_acc for each in training]
        color, width, order = (BLUE, 2, 3) if chosen else (GREY, 1, 2)
        axis.plot(epochs, accuracies, "o-", ms=2, lw=width, color=color, zorder=order)
    for rung in learned.rungs:
        axis.axvline(rung, color=RED, lw=0.6, ls=":")
    axis.set(xlabel="epochs (rungs dotted; the first choice in blue)", ylabel="validation accuracy, %")


def _trainings(learned: Learned) -> Mapping[tuple[str, int], list[Measurement]]:
    """By student and seed, in the order of epochs."""
    trainings: dict[tuple[str, int], list[Measurement]] = {}
    for each in sorted(learned.measurements, key=lambda each: each.epochs):
        trainings.setdefault((each.arch_id, each.seed), []).append(each)
    return trainings


def _plot_prediction(axis: Axes, learned: Learned) -> None:
    prediction, entries = learned.prediction, learned.entries
    assert prediction is not None
    params = np.array([each.row.params for each in entries]) / 1e6
    measured = sorted({each.index for each in learned.observations})
    low, high = prediction.interval()
    mean = prediction.mean
    axis.scatter(params, mean, s=6, color=GREY, linewidths=0, label="predicted")
    spans = np.abs(np.stack([low, high])[:, measured] - mean[measured])
    axis.errorbar(params[measured], mean[measured], spans, fmt="o", ms=3, lw=0.8, color=RED, label="trained, 90 %")
    best = learned.index(learned.ranking.top(1)[0].row.arch_id)
    axis.plot(params[best], mean[best], "*", ms=14, color=BLUE, label="best")
    axis.set(xlabel="parameters, millions", ylabel=f"validation accuracy after {learned.rungs[-1]} epochs, %")
    axis.legend(loc="lower right")
