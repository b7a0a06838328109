"""What frozen features say of a dataset: labels that look wrong, and what more images would be worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tvt_ray.teachers.head import NUM_FOLDS, fit, fold_of

SHARES = (0.25, 0.5, 1.0)  # of the images that a fold leaves to learn from
NUM_REPEATS = 3  # draws of a share, over which accuracies are averaged
NUM_RESAMPLES = 500
CONFIDENCE = 0.9

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Suspect:
    """An image whose label looks wrong."""

    place: int  # among those that were looked at
    label: int
    likelier: int  # the class that it looks like
    margin: float  # by which that one's probability is above the label's


@dataclass(frozen=True)
class Growth:
    """What a linear head on frozen features reaches with parts of the images, and would with twice as many; percent."""

    quarter: float
    half: float
    all: float
    twice: float  # by a power law of the error (Hestness et al. 2017, https://arxiv.org/abs/1712.00409)
    twice_interval: tuple[float, float]  # 90 %, over other images


def out_of_fold(
    features: NDArray[np.float32], labels: Labels, strength: float, num_classes: int, seed: int = 0
) -> Floats:
    """Probabilities (N, classes) of each image, by a head that learned from the other folds."""
    folds, found = fold_of(labels, seed), np.zeros((len(labels), num_classes))
    for fold in range(NUM_FOLDS):
        out = folds == fold
        if out.any():
            weight, bias = fit(features[~out], labels[~out], strength, num_classes)
            found[out] = softmax((features[out] @ weight.T + bias).astype(np.float64), axis=1)
    return found


def suspects(labels: Labels, probabilities: Floats) -> list[Suspect]:
    """Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068), the worst first.

    A label looks wrong where another class is likelier, and as likely as it is on average for images that are of it.
    """
    num_classes, own = probabilities.shape[1], probabilities[np.arange(len(labels)), labels]
    means = [own[labels == c].mean() if (labels == c).any() else np.inf for c in range(num_classes)]
    confident = np.where(probabilities >= np.array(means), probabilities, 0.0)
    likelier = confident.argmax(1)
    margins = confident.max(1) - own
    places = np.flatnonzero((likelier != labels) & (margins > 0))
    places = places[np.argsort(-margins[places], kind="stable")]
    return [Suspect(int(i), int(labels[i]), int(likelier[i]), float(margins[i])) for i in places]


def growth(
    features: NDArray[np.float32], labels: Labels, strength: float, num_classes: int, seed: int = 0
) -> Growth | None:
    """By cross-validation, each fold learned from parts of the others. None where a part would lack a class."""
    if np.bincount(labels, minlength=num_classes).min() < NUM_FOLDS:
        return None
    folds, rng = fold_of(labels, seed), np.random.default_rng(seed)
    hits = np.zeros((len(SHARES), len(labels)))
    for fold in range(NUM_FOLDS):
        out = folds == fold
        for number, share in enumerate(SHARES):
            repeats = 1 if share == 1 else NUM_REPEATS
            for _ in range(repeats):
                chosen = _part(np.flatnonzero(~out), labels, share, rng)
                weight, bias = fit(features[chosen], labels[chosen], strength, num_classes)
                hits[number, out] += (features[out] @ weight.T + bias).argmax(1) == labels[out]
            hits[number, out] /= repeats
    draws = [hits[:, rng.integers(0, len(labels), len(labels))].mean(1) for _ in range(NUM_RESAMPLES)]
    twice = np.array([extrapolated(draw) for draw in draws])
    low, high = np.quantile(twice, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    quarter, half, every = 100 * hits.mean(1)
    interval = (100 * float(low), 100 * float(high))
    return Growth(float(quarter), float(half), float(every), 100 * extrapolated(hits.mean(1)), interval)


def _part(places: NDArray[np.int64], labels: Labels, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """The same share of each class, one image at least."""
    if share == 1:
        return places
    parts = []
    for label in np.unique(labels[places]):
        mine = rng.permutation(places[labels[places] == label])
        parts.append(mine[: max(1, round(share * len(mine)))])
    return np.sort(np.concatenate(parts))


def extrapolated(accuracies: Sequence[float] | Floats) -> float:
    """The accuracy (a share) with twice as many images as the last, each of which has twice those of the one before.

    The logarithm of the error falls by as much with each doubling, on average, and never rises.
    """
    errors = np.log(np.clip(1 - np.asarray(accuracies, np.float64), 1e-4, 1))
    slope = min(float(np.polyfit(np.arange(len(errors)), errors, 1)[0]), 0.0)
    return max(float(1 - np.exp(errors[-1] + slope)), float(accuracies[-1]))
