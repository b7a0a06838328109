"""An evaluation as one HTML file that needs no other, light or dark, wide or narrow. Every text is escaped."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from tvt_ray.quality.evaluation import Evaluation, Mistake
from tvt_ray.quality.statistics import ClassQuality, Interval, Quality, confusions
from tvt_ray.report.contact_sheet import Pixels
from tvt_ray.report.html import data_uri, diagram, drawn, escape, facts_list, page, table
from tvt_ray.report.reliability import plot_reliability

MAX_MATRIX = 40  # classes; of more, the most frequent confusions are listed
NUM_CONFUSIONS = 20
DARKEST = 0.6  # opacity of a cell that holds all images of its class


def evaluation_page(found: Evaluation, pictures: Sequence[Pixels]) -> bytes:
    """The page. `pictures`: of the mistakes, in their order."""
    quality = found.quality
    body = _BODY.format(
        verdict=escape(verdict(quality)),
        facts=facts_list(facts(found)),
        notes="".join(f"<li>{escape(note)}</li>" for note in found.notes),
        classes=table(CLASS_COLUMNS, (class_cells(each) for each in quality.classes)),
        confusion=_confusion(quality),
        diagram=diagram(
            drawn(lambda: plot_reliability(quality.reliability)),
            "share of images named right by the probability of the likeliest class",
        ),
        reliability=table(BIN_COLUMNS, _bin_cells(quality)),
        mistakes=_mistakes(found.mistakes, pictures),
    )
    return page(f"{_last(found.student)} on {_last(found.dataset)}", body)


def verdict(quality: Quality) -> str:
    """The accuracy beside the majority's, in words."""
    beside = f"always naming {quality.majority_class} is right for {quality.majority:.2f} %"
    said = {True: "better than that", False: "worse than that", None: "which is no clear difference"}
    low_high = interval_text(quality.top1_ci95)
    return f"{quality.top1:.2f} % named right (95 %: {low_high}); {beside}: {said[quality.beats_majority]}"


def facts(found: Evaluation) -> Mapping[str, str]:
    """What was evaluated on what, and the figures of all classes together."""
    quality = found.quality
    return {
        "student": found.student,
        "dataset": found.dataset,
        "split": f"{found.split}, {quality.num_images:,} images",
        "accuracy": f"{quality.top1:.2f} %, Wilson interval (95 %) {interval_text(quality.top1_ci95)}",
        "balanced accuracy": f"{quality.balanced_accuracy:.2f} %, the mean recall of the classes",
        "majority class": f"{quality.majority_class}, {quality.majority:.2f} % of the images",
        "calibration error": calibration_text(quality),
        "log-likelihood": f"{quality.nll:.4f} nats, negative, mean",
        "Brier score": f"{quality.brier:.4f} of 0 to 2, less is better",
    }


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


def _confusion(quality: Quality) -> str:
    if len(quality.classes) > MAX_MATRIX:
        most = ([true, taken, f"{count:,}"] for true, taken, count in confusions(quality, NUM_CONFUSIONS))
        return "<p>The most frequent mistakes:</p>" + table(("class", "taken for", "images"), most)
    names = [each.name for each in quality.classes]
    head = "".join(f"<th>{escape(name)}</th>" for name in ["", *names])
    lines = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(map(_shaded, row, [max(sum(row), 1)] * len(row)))}</tr>"
        for name, row in zip(names, quality.confusion, strict=True)
    )
    said = "<p>A row for each true class, a column for what its images were taken for.</p>"
    return f'{said}<div class="scroll"><table class="confusion"><tr>{head}</tr>{lines}</table></div>'


def _shaded(count: int, total: int) -> str:
    """A cell as dark as its share of the row."""
    return f'<td style="background:rgb(0 121 140/{DARKEST * count / total:.2f})">{count or ""}</td>'


def _mistakes(mistakes: Sequence[Mistake], pictures: Sequence[Pixels]) -> str:
    if not mistakes:
        return "<p>No image was named wrong.</p>"
    shown = "".join(_mistake(each, pixels) for each, pixels in zip(mistakes, pictures, strict=True))
    return f'<div class="mistakes">{shown}</div>'


def _mistake(each: Mistake, pixels: Pixels) -> str:
    said = f"<b>{escape(each.truth)}</b> taken for <b>{escape(each.predicted)}</b>, {each.confidence:.1f} %"
    image = f'<img alt="{escape(each.truth)}" src="{data_uri(_png(pixels))}">'
    return f"<figure>{image}<figcaption>{said}<br><small>{escape(each.image)}</small></figcaption></figure>"


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


_BODY = """<p class="verdict">{verdict}</p>{facts}<ul class="notes">{notes}</ul>
<h2>Classes</h2>{classes}<h2>Confusion</h2>{confusion}
<h2>Calibration</h2><p>A bar on the dashed line is as often right as sure; the number of images stands above it.</p>
{diagram}{reliability}
<h2>Most confident mistakes</h2>{mistakes}"""
