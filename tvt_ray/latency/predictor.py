"""Latency of any architecture, from a device profile."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tvt_ray.errors import UsageError
from tvt_ray.latency.fitting import part_terms, whole_terms
from tvt_ray.latency.profile import BatchProfile, PartFit, WholeFit
from tvt_ray.vits import Arch, Space
from tvt_ray.vits.pieces import Part

ENUMERABLE = 20_000  # spaces up to this size are gone through for the fastest
NUM_STARTS = 4


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
        """Of all of them."""
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
        """From what a profile holds."""
        measured = {(part.kind, part.sizes): part.ms for part in batch.parts}
        return cls(space, num_classes, PartTimes(measured, batch.fits), batch.whole)

    def __call__(self, arch: Arch) -> float:
        """Milliseconds for a batch; a deeper student of equal blocks never takes less."""
        return _dot(self.whole, whole_terms(self.times.sum_ms(self.space.parts(arch, self.num_classes))))


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
