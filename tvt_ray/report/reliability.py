"""The reliability diagram: how often a student is right, by how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from tvt_ray.quality.statistics import ReliabilityBin
from tvt_ray.report.figures import BLUE, RED


def plot_reliability(bins: Sequence[ReliabilityBin]) -> Figure:
    """Accuracy as bars over the bins of confidence, the number of images above each, and the line of who is as often
    right as sure.
    """
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    width = bins[0].high - bins[0].low
    for each in bins:
        if each.accuracy is not None:
            axes.bar(each.low, each.accuracy, 0.9 * width, align="edge", color=BLUE)
            axes.annotate(f"{each.num_images:,}", (each.low + 0.45 * width, each.accuracy), ha="center", va="bottom")
    axes.plot([0, 100], [0, 100], "--", color=RED, lw=1.5)
    axes.set(xlim=(0, 100), xlabel="probability of the likeliest class (%)", ylim=(0, 108), ylabel="named right (%)")
    return figure
