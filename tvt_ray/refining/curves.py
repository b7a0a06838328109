"""Measurements of the surrogate: which are rungs, and the scale on which accuracies are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvt_ray.refining.features import Floats
from tvt_ray.refining.halving import MIN_MEASURED

Indices = NDArray[np.int64]

# How far above the best that was measured accuracies may go on growing, in ranges of what was measured. With a ceiling
# that is near, differences count for more towards the top; with one far off, the scale is straight. Evidence picks one.
HEADROOMS = (0.1, 0.3, 1.0, 3.0)
MIN_RANGE = 0.1  # percentage points; smaller differences are no scale
MAX_RUNGS = 6


@dataclass(frozen=True)
class Observation:
    """Validation accuracy of a row's student after some epochs of a training."""

    index: int  # of the row
    epochs: int
    seed: int
    val_acc: float  # percent


@dataclass(frozen=True)
class Curves:
    """Observations in arrays (m,), in an order that does not depend on theirs. The last rung is the end."""

    rows: Indices
    rungs: Indices  # counted from 0
    trainings: Indices  # which have one number where row and seed are the same
    accuracy: Floats  # percent
    num_rungs: int

    @property
    def measured(self) -> Indices:
        """The rows that were trained, each once."""
        return np.unique(self.rows)


def arrange(observations: Sequence[Observation], epochs: int) -> Curves:
    """What was measured after at most `epochs` epochs, at rungs: where a training's last measurement is.

    Beyond six rungs, those of most observations are kept, and the last.
    """
    known = sorted(
        {each for each in observations if each.epochs <= epochs},
        key=lambda each: (each.index, each.seed, each.epochs, each.val_acc),
    )
    last: dict[tuple[int, int], int] = {}
    for each in known:
        last[each.index, each.seed] = each.epochs  # sorted: the latest comes last
    rungs = _choose_rungs(known, sorted(set(last.values())))
    kept = [each for each in known if each.epochs in rungs]
    trainings = sorted({(each.index, each.seed) for each in kept})
    number = {training: i for i, training in enumerate(trainings)}
    return Curves(
        rows=np.array([each.index for each in kept], dtype=np.int64),
        rungs=np.array([rungs.index(each.epochs) for each in kept], dtype=np.int64),
        trainings=np.array([number[each.index, each.seed] for each in kept], dtype=np.int64),
        accuracy=np.array([each.val_acc for each in kept], dtype=np.float64),
        num_rungs=len(rungs),
    )


def _choose_rungs(known: Sequence[Observation], ends: Sequence[int]) -> list[int]:
    counts = {end: sum(each.epochs == end for each in known) for end in ends}
    most = sorted(ends[:-1], key=lambda end: (-counts[end], -end))[: MAX_RUNGS - 1]
    return sorted([*most, *ends[-1:]])


@dataclass(frozen=True)
class Scale:
    """Accuracy y of a rung as -log(ceiling - y), in standard deviations: the last tenths of a point count for more.

    A monotone scale, one of a warped Gaussian process (Snelson et al. 2003), so that it changes no order.
    """

    ceilings: Floats  # (rungs,) percent
    offsets: Floats  # (rungs,) what is 0
    unit: float  # what is 1: the standard deviation at the last rung of at least eight observations

    def latent(self, accuracy: Floats, rungs: Indices) -> Floats:
        """Accuracies (m,) in percent at rungs (m,), on this scale."""
        return np.asarray((-np.log(self.ceilings[rungs] - accuracy) - self.offsets[rungs]) / self.unit)

    def log_jacobian(self, accuracy: Floats, rungs: Indices) -> float:
        """The logarithm of the derivative of `latent`, summed: what makes evidences of two scales comparable."""
        return float(-np.log(self.ceilings[rungs] - accuracy).sum() - len(accuracy) * np.log(self.unit))

    def percent(self, latent: Floats) -> Floats:
        """Back to accuracies, at the last rung."""
        exponents = np.clip(-(latent * self.unit + self.offsets[-1]), -50, 50)
        return np.asarray(np.clip(self.ceilings[-1] - np.exp(exponents), 0, 100))

    def points_per_latent(self, latent: float) -> float:
        """Percentage points that 1 more is worth there."""
        return float(np.exp(np.clip(-(latent * self.unit + self.offsets[-1]), -50, 50)) * self.unit)


def make_scale(curves: Curves, headroom: float) -> Scale:
    """With a ceiling above the best of each rung by `headroom` times the range of the widest rung."""
    by_rung = [curves.accuracy[curves.rungs == rung] for rung in range(curves.num_rungs)]
    gap = headroom * max(MIN_RANGE, *(float(np.ptp(each)) for each in by_rung))
    ceilings = np.array([each.max() + gap for each in by_rung])
    logs = [-np.log(ceiling - each) for ceiling, each in zip(ceilings, by_rung, strict=True)]
    wide = [each for each in logs if len(each) >= MIN_MEASURED] or [max(reversed(logs), key=len)]
    unit = max(float(wide[-1].std()), MIN_RANGE / (gap + MIN_RANGE))
    return Scale(ceilings, np.array([each.mean() for each in logs]), unit)
