"""An evaluation as one HTML file that needs no other, light or dark, wide or narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from PIL import Image

from tvt_ray.quality.evaluation import Evaluation
from tvt_ray.quality.statistics import ClassQuality, Interval, Quality, ReliabilityBin, confusions
from tvt_ray.report.contact_sheet import Pixels, png
from tvt_ray.report.html import BLUE, RED, drawn, page

MAX_MATRIX = 40  # classes; of more, the most frequent confusions are listed
NUM_CONFUSIONS = 20


def evaluation_page(found: Evaluation, pictures: Sequence[Pixels]) -> bytes:
    """The page. `pictures`: of the mistakes, in their order."""
    quality = found.quality
    return page(
        "evaluation",
        title=f"{_last(found.student)} on {_last(found.dataset)}",
        found=found,
        verdict=verdict(quality),
        calibration=calibration_text(quality),
        class_columns=CLASS_COLUMNS,
        class_lines=map(class_cells, quality.classes),
        confusions=[(true, taken, f"{count:,}") for true, taken, count in confusions(quality, NUM_CONFUSIONS)],
        has_matrix=len(quality.classes) <= MAX_MATRIX,
        figure=drawn(lambda: plot_reliability(quality.reliability)),
        bin_columns=BIN_COLUMNS,
        bin_lines=_bin_cells(quality),
        mistakes=list(zip(found.mistakes, (png(Image.fromarray(each)) for each in pictures), strict=True)),
    )


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def verdict(quality: Quality) -> str:
    """The accuracy, and whether that is better than always naming the largest class."""
    beside = f"always naming {quality.majority_class} is right for {quality.majority:.2f} %"
    said = {True: "better than that", False: "worse than that", None: "which is no clear difference"}
    low_high = interval_text(quality.top1_ci95)
    return f"{quality.top1:.2f} % named right (95 %: {low_high}); {beside}: {said[quality.beats_majority]}"


def calibration_text(quality: Quality) -> str:
    """The expected calibration error, and to which side."""
    apart = quality.mean_confidence - quality.top1
    side = "sure than right" if apart > 0 else "right than sure"
    num_bins = len(quality.reliability)
    return f"{quality.ece:.2f} points in {num_bins} bins, on average {abs(apart):.2f} points more {side}"


def interval_text(interval: Interval | None) -> str:
    """As in 69.2 to 82.5; nothing where there is none."""
    return "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


CLASS_COLUMNS = ("class", "images", "recall %", "95 %", "precision %", "F1 %")
BIN_COLUMNS = ("probability %", "images", "mean probability %", "named right %")


def class_cells(each: ClassQuality) -> list[str]:
    """A class as a line under CLASS_COLUMNS."""
    figures = [_figure(each.recall), interval_text(each.recall_ci95), _figure(each.precision), _figure(each.f1)]
    return [each.name, f"{each.support:,}", *figures]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _bin_cells(quality: Quality) -> Iterable[list[str]]:
    for each in quality.reliability:
        if each.num_images:
            edges = f"{each.low:.1f} to {each.high:.1f}"
            yield [edges, f"{each.num_images:,}", _figure(each.confidence), _figure(each.accuracy)]


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
