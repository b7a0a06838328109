"""What predictions are worth, from labels and probabilities alone. Shares are in percent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

NUM_BINS = 15  # of confidence, as in Guo et al. 2017 (https://arxiv.org/abs/1706.04599)
LEAST = float(np.finfo(np.float64).tiny)  # a probability of 0 has no logarithm

Labels: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class ClassQuality:
    """Of one class. A figure is None where nothing says it: no images of the class, or it was never predicted."""

    name: str
    support: int  # images of the class
    recall: float | None  # of its images, how many were named right
    recall_ci95: Interval | None
    precision: float | None  # of the images that were given its name, how many are of it
    f1: float | None  # harmonic mean of the two


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose likeliest class has a probability above `low` and up to `high` (percent)."""

    low: float
    high: float
    num_images: int
    confidence: float | None  # mean probability of the likeliest class; None without images
    accuracy: float | None


@dataclass(frozen=True)
class Quality:
    """Of a classifier on some images."""

    num_images: int
    top1: float
    top1_ci95: Interval  # Wilson's interval
    balanced_accuracy: float  # mean recall of the classes that have images
    majority: float  # what always naming the most frequent class of these images is right for
    majority_class: str
    mean_confidence: float
    ece: float  # expected calibration error, percentage points
    nll: float  # mean negative log-likelihood of the true class, nats
    brier: float  # mean squared distance of the probabilities from the truth, summed over classes: 0 to 2
    classes: tuple[ClassQuality, ...]
    confusion: tuple[tuple[int, ...], ...]  # images, a row for each true class, a column for each predicted one
    reliability: tuple[ReliabilityBin, ...]

    @property
    def beats_majority(self) -> bool | None:
        """Whether the accuracy is above (below) the majority's by more than chance; None where it cannot be told."""
        low, high = self.top1_ci95
        return True if low > self.majority else False if high < self.majority else None


def quality_of(labels: Labels, probabilities: Floats, class_names: Sequence[str], num_bins: int = NUM_BINS) -> Quality:
    """`labels` (n,), `probabilities` (n, classes), a row adding up to 1; the first of equal ones is the prediction.

    Raises ValueError where shapes do not fit, or there are no images.
    """
    _check(labels, probabilities, class_names)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    hits, (majority, majority_class) = predicted == labels, majority_of(labels, class_names)
    classes, bins = _by_class(labels, predicted, class_names), _reliability(hits, confidence, num_bins)
    true = probabilities[np.arange(len(labels)), labels]
    return Quality(
        num_images=len(labels),
        top1=100 * float(hits.mean()),
        top1_ci95=wilson(int(hits.sum()), len(labels)),
        balanced_accuracy=float(np.mean([each.recall for each in classes if each.recall is not None])),
        majority=majority,
        majority_class=majority_class,
        mean_confidence=100 * float(confidence.mean()),
        ece=_calibration_error(bins),
        nll=float(-np.log(np.maximum(true, LEAST)).mean()),
        brier=float(((probabilities**2).sum(1) - 2 * true + 1).mean()),
        classes=classes,
        confusion=_confusion(labels, predicted, len(class_names)),
        reliability=bins,
    )


def _check(labels: Labels, probabilities: Floats, class_names: Sequence[str]) -> None:
    if len(labels) == 0:
        raise ValueError("quality is that of one image at least; got none")
    if probabilities.shape != (len(labels), len(class_names)):
        wanted = (len(labels), len(class_names))
        raise ValueError(f"probabilities are (images, classes), here {wanted}; got {probabilities.shape}")


def majority_of(labels: Labels, class_names: Sequence[str]) -> tuple[float, str]:
    """The share of the most frequent class, in percent, and its name: the first of equally frequent ones."""
    counts = np.bincount(labels, minlength=len(class_names))
    return 100 * float(counts.max() / len(labels)), class_names[int(counts.argmax())]


def wilson(successes: int, total: int) -> Interval:
    """Wilson's 95 % interval of a share, in percent (Wilson 1927): right for few images and shares near 0 and 100."""
    found = stats.binomtest(successes, total).proportion_ci(0.95, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _by_class(labels: Labels, predicted: Labels, class_names: Sequence[str]) -> tuple[ClassQuality, ...]:
    from sklearn.metrics import precision_recall_fscore_support  # takes over a second, and most imports need none

    numbers = np.arange(len(class_names))
    figures = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=np.nan)
    hits = np.bincount(labels[labels == predicted], minlength=len(class_names))
    return tuple(
        ClassQuality(
            name,
            int(support),
            _percent(recall),
            wilson(int(right), int(support)) if support else None,
            _percent(precision),
            _percent(f1),
        )
        for name, precision, recall, f1, support, right in zip(class_names, *figures, hits, strict=True)
    )


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else 100 * float(share)


def _confusion(labels: Labels, predicted: Labels, num_classes: int) -> tuple[tuple[int, ...], ...]:
    from sklearn.metrics import confusion_matrix

    found = confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    return tuple(tuple(map(int, row)) for row in found)


def _reliability(hits: NDArray[np.bool_], confidence: Floats, num_bins: int) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width; a confidence on an edge belongs to the bin below."""
    edges = np.linspace(0, 1, num_bins + 1)
    places = np.digitize(confidence, edges[1:-1], right=True)
    made = []
    for number in range(num_bins):
        inside = places == number
        count = int(inside.sum())
        sure, right = (100 * float(values[inside].mean()) if count else None for values in (confidence, hits))
        made.append(ReliabilityBin(100 * float(edges[number]), 100 * float(edges[number + 1]), count, sure, right))
    return tuple(made)


def _calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean distance of accuracy from confidence over bins, each with the weight of its images."""
    filled = [(each.num_images, each.accuracy, each.confidence) for each in bins]
    apart = [count * abs(right - sure) for count, right, sure in filled if right is not None and sure is not None]
    return sum(apart) / sum(each.num_images for each in bins)


def confident_mistakes(labels: Labels, probabilities: Floats, count: int) -> list[int]:
    """Places of at most `count` images that were named wrong, the most confident first, of equal ones the first."""
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    order = np.argsort(-confidence[wrong], kind="stable")
    return [int(place) for place in wrong[order][:count]]


def confusions(quality: Quality, count: int) -> list[tuple[str, str, int]]:
    """(true class, class that it was taken for, images) of the most frequent mistakes, at most `count`."""
    names = [each.name for each in quality.classes]
    table = np.array(quality.confusion)
    np.fill_diagonal(table, 0)
    order = np.argsort(-table, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, table.shape), strict=True)
    return [(names[true], names[taken], int(table[true, taken])) for true, taken in pairs if table[true, taken]]
