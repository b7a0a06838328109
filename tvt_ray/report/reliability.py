"""The reliability diagram: how often a student is right, by how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from tvt_ray.quality.statistics import ReliabilityBin
from tvt_ray.report.figures import BLUE, RED


def plot_reliability(bins: Sequence[ReliabilityBin], ink: str) -> Figure:
    """Accuracy as bars over the bins of confidence, the number of images above each, and the line of who is as often
    right as sure. Without a background, for a page of any colour.
    """
    figure = Figure(figsize=(6, 4), layout="constrained", facecolor="none")
    axes = figure.subplots()
    axes.set_facecolor("none")
    width = bins[0].high - bins[0].low
    for each in bins:
        if each.accuracy is not None:
            axes.bar(each.low, each.accuracy, 0.9 * width, align="edge", color=BLUE)
            axes.annotate(
                f"{each.num_images:,}", (each.low + 0.45 * width, each.accuracy), ha="center", va="bottom", color=ink
            )
    axes.plot([0, 100], [0, 100], "--", color=RED, lw=1.5)
    axes.set(xlim=(0, 100), ylim=(0, 108))
    axes.set_xlabel("probability of the likeliest class (%)", color=ink)
    axes.set_ylabel("named right (%)", color=ink)
    axes.tick_params(colors=ink)
    axes.spines[:].set_color(ink)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
