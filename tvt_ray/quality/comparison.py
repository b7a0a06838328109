"""A student beside its rivals: who names more images right, and is the difference more than luck?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tvt_ray.quality.evaluation import rounded
from tvt_ray.quality.statistics import Interval

CONFIDENCE = 0.95
DIGITS = 2  # after the point, in JSON

Hits: TypeAlias = NDArray[np.bool_]  # (seeds, images): whether an image was named right


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and images, percent or percentage points."""

    value: float
    ci95: Interval  # over other images of the kind and, where there is more than one seed, over other seeds

    @property
    def clear(self) -> bool:
        """Whether it is not 0 by more than chance."""
        return not self.ci95[0] <= 0 <= self.ci95[1]


@dataclass(frozen=True)
class Rival:
    """What the student is compared with, or the student itself."""

    name: str  # as in deit
    title: str  # for people
    arch_id: str
    params: int
    path: str  # its folder, that of the first seed
    test_accs: tuple[float, ...]  # by seed, percent
    accuracy: Estimate
    ahead: Estimate | None  # points by which the student is above it, by seeds and images; None: it is the student


@dataclass(frozen=True)
class Comparison:
    """A student, its rivals, and who costs no training."""

    dataset: str
    num_images: int  # of the test split
    seeds: tuple[int, ...]
    epochs: int  # of each training
    majority: float  # what naming the most frequent class is right for, percent
    majority_class: str
    teacher: str
    teacher_acc: float
    rivals: tuple[Rival, ...]  # the student first
    left_out: tuple[str, ...]  # rivals that are none here, and why
    verdict: tuple[str, ...]  # sentences
    page: str
    file: str


def estimate(values: NDArray[np.float64]) -> Estimate:
    """The mean of (seeds, images) in percent, with its 95 % interval.

    The variances of the means over images and over seeds are added, which counts the noise that they share twice: the
    interval is rather too wide. Student's t has the degrees of freedom of Welch (1947) and Satterthwaite. With one seed
    nothing is known of others, and the interval is that of the images alone. Raises ValueError without values.
    """
    if values.size == 0:
        raise ValueError("an estimate is of one image at least; got none")
    parts = [part for part in (_variance(values.mean(0)), _variance(values.mean(1))) if part]
    variance = sum(variance for variance, _ in parts)
    mean = float(values.mean())
    if not variance:
        return Estimate(100 * mean, (100 * mean, 100 * mean))
    freedom = variance**2 / sum(part**2 / free for part, free in parts)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    return Estimate(100 * mean, (100 * (mean - reach), 100 * (mean + reach)))


def _variance(means: NDArray[np.float64]) -> tuple[float, int] | None:
    """Of the mean of these, and its degrees of freedom; None where one says nothing of it."""
    free = len(means) - 1
    return (float(means.var(ddof=1)) / len(means), free) if free else None


def rival(
    name: str, title: str, arch_id: str, params: int, path: str, hits: Hits, student: Hits | None = None
) -> Rival:
    """`hits` and, unless this is the student itself, `student`: of the same seeds and images."""
    accuracies = tuple(100 * float(share) for share in hits.mean(1))
    ahead = None if student is None else estimate(student.astype(np.float64) - hits)
    found = estimate(hits.astype(np.float64))
    accuracy = Estimate(found.value, (max(found.ci95[0], 0.0), min(found.ci95[1], 100.0)))  # a share
    return Rival(name, title, arch_id, params, path, accuracies, accuracy, ahead)


def verdict(rivals: Sequence[Rival], num_seeds: int, num_images: int) -> tuple[str, ...]:
    """What a reader should take from it, also when the search lost. The student comes first."""
    student, *others = rivals
    seeds = "one seed" if num_seeds == 1 else f"the mean of {num_seeds} seeds"
    title = student.title[:1].upper() + student.title[1:]
    said = [f"{title} names {student.accuracy.value:.1f} % of {num_images:,} images right ({seeds})."]
    said += [_beside(each) for each in others]
    lost = [each.title for each in others if each.ahead and each.ahead.clear and each.ahead.value < 0]
    if lost:
        said.append(f"So the search lost here to {', '.join(lost)}: better students are in the folders of those.")
    elif others and not any(each.ahead and each.ahead.clear for each in others):
        said.append("So nothing here says that one of them is better than another.")
    if num_seeds == 1 and others:
        said.append("With one seed nothing is known of what another would change: --seeds 3 says it.")
    return tuple(said)


def _beside(each: Rival) -> str:
    assert each.ahead is not None
    points, (low, high) = each.ahead.value, each.ahead.ci95
    interval = f"95 %: {low:+.1f} to {high:+.1f}"
    if not each.ahead.clear:
        return f"No clear difference from {each.title}: {points:+.1f} points ({interval})."
    side = "above" if points > 0 else "below"
    return f"Clearly {side} {each.title}, by {abs(points):.1f} points ({interval})."


def to_json(found: Comparison) -> Mapping[str, object]:
    """What `distill --baselines --json` prints of it, with two digits after the point."""
    return dict(rounded({**vars(found), "rivals": [_rival_json(each) for each in found.rivals]}, DIGITS))


def _rival_json(each: Rival) -> dict[str, object]:
    told = {key: value for key, value in vars(each).items() if not isinstance(value, Estimate | None)}
    for name, found in (("test_acc", each.accuracy), ("ahead", each.ahead)):
        told |= {name: found and found.value, f"{name}_ci95": found and found.ci95}
    return told
