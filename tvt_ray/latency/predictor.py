"""From measured times to the latency of any architecture: fits by least squares, and predictions from a device profile.

What is added up is what a roofline counts (Williams et al. 2009, https://doi.org/10.1145/1498765.1498785): arithmetic,
weights that are fetched once, values that are read and written, and an overhead. Weights are non-negative, so that more
of anything is never predicted to be faster.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from tvt_ray.errors import UsageError
from tvt_ray.latency.profile import BatchProfile, Error, PartFit, WholeFit
from tvt_ray.vits import Arch, Space
from tvt_ray.vits.pieces import Part

_MILLION = 1e6
ENUMERABLE = 20_000  # spaces up to this size are gone through for the fastest
NUM_STARTS = 4


def fit_parts(times_ms: Mapping[Part, float]) -> dict[str, PartFit]:
    """A fit for each kind among the parts."""
    fits = {}
    for kind in dict.fromkeys(part.kind for part in times_ms):
        measured = {part: ms for part, ms in times_ms.items() if part.kind == kind}
        weights = _solve([part_terms(part) for part in measured], list(measured.values()))
        fits[kind] = PartFit(**dict(zip(PartFit.model_fields, weights, strict=True)))
    return fits


def part_terms(part: Part) -> tuple[float, ...]:
    """What the fields of PartFit are multiplied with."""
    return 1.0, part.cost.flops / _MILLION, part.cost.params / _MILLION, part.activations / _MILLION


def fit_whole(parts_ms: Sequence[float], times_ms: Sequence[float]) -> WholeFit:
    """From students: the sum of their parts' times, and what they take."""
    weights = _solve([(1.0, each) for each in parts_ms], times_ms)
    return WholeFit(**dict(zip(WholeFit.model_fields, weights, strict=True)))


def _solve(terms: Sequence[Sequence[float]], times_ms: Sequence[float]) -> list[float]:
    """Weights, none below 0, of least squared relative error. Columns are scaled for the rounding alone."""
    relative = np.asarray(terms, float) / np.asarray(times_ms, float)[:, None]
    scale = np.abs(relative).max(0)
    scale[scale == 0] = 1
    weights: NDArray[np.float64] = nnls(relative / scale, np.ones(len(times_ms)))[0]
    return [float(weight) for weight in weights / scale]


def relative_error(predicted: ArrayLike, measured: ArrayLike) -> Error:
    """How far predictions are from what was measured, of at least one pair."""
    errors = np.abs(np.asarray(predicted) - np.asarray(measured)) / np.asarray(measured)
    return Error(num=errors.size, median=float(np.median(errors)), worst=float(errors.max()))


@dataclass(frozen=True)
class PartTimes:
    """What parts take: as measured, else as the fit of their kind says."""

    measured: Mapping[tuple[str, tuple[int, ...]], float]  # milliseconds by kind and sizes
    fits: Mapping[str, PartFit]

    def part_ms(self, part: Part) -> float:
        """Milliseconds. Raises UsageError for a part of a kind that the profile does not know."""
        known = self.measured.get((part.kind, part.sizes))
        if known is not None:
            return known
        if part.kind not in self.fits:
            raise UsageError(f"the latency profile knows no parts of kind {part.kind!r}: {', '.join(self.fits)}")
        return _dot(self.fits[part.kind], part_terms(part))

    def sum_ms(self, parts: Iterable[Part]) -> float:
        """Milliseconds of all of them."""
        return sum(map(self.part_ms, parts))


@dataclass(frozen=True)
class Predictor:
    """Students of a space, for one batch size of a profile."""

    space: Space
    num_classes: int
    times: PartTimes
    whole: WholeFit

    @classmethod
    def of(cls, batch: BatchProfile, space: Space, num_classes: int) -> Predictor:
        """The predictor of what was measured with one batch size."""
        measured = {(part.kind, part.sizes): part.ms for part in batch.parts}
        return cls(space, num_classes, PartTimes(measured, batch.fits), batch.whole)

    def __call__(self, arch: Arch) -> float:
        """Milliseconds for a batch; a deeper student of equal blocks never takes less."""
        return _dot(self.whole, (1.0, self.times.sum_ms(self.space.parts(arch, self.num_classes))))


def _dot(fit: PartFit | WholeFit, terms: Iterable[float]) -> float:
    return math.fsum(weight * term for (_, weight), term in zip(fit, terms, strict=True))


def fastest(space: Space, latency_ms: Callable[[Arch], float]) -> Arch:
    """The architecture that takes least: of a large space, what a descent from several starts finds."""
    if space.size() <= ENUMERABLE:
        return min(space.enumerate(), key=latency_ms)
    rng = random.Random(0)
    found = [_descend(space, latency_ms, space.encode(space.sample(rng))) for _ in range(NUM_STARTS)]
    return min(found, key=latency_ms)


def _descend(space: Space, latency_ms: Callable[[Arch], float], indices: tuple[int, ...]) -> Any:
    """Chooses each position of the encoding anew for as long as that helps."""
    best, before = latency_ms(space.decode(indices)), math.inf
    while best < before:
        before = best
        for position, count in enumerate(space.dimensions):
            tried = itertools.chain([indices[position]], range(count))
            options = [(*indices[:position], choice, *indices[position + 1 :]) for choice in tried]
            indices = min(options, key=lambda option: latency_ms(space.decode(option)))
        best = latency_ms(space.decode(indices))
    return space.decode(indices)
