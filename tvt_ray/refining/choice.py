"""Which students are measured next: those that teach most, which are good or uncertain, and unlike each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Architectures to choose from, all inside the budget; of each shape one is chosen at most."""

    shapes: Sequence[str]
    params: Sequence[int]
    features: Floats  # (n, d), standardised
    prior: Floats  # (n,), what ranks without a measurement; higher is better


def spread(candidates: Candidates, count: int, taken: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Whom one would take without measuring: the prior's first choice, and the largest. Then one of each other band of
    parameters, the largest bands first; bands are equally wide in log parameters.

    Of a band it is the best by a guess: the prior plus a random direction among the features, of equal weight, which is
    what may be good by what is known before anything is measured. `taken`: shapes that were chosen before. Gives
    indices, `count` where there are so many shapes.
    """
    logs = np.log(np.asarray(candidates.params, dtype=float))
    edges = np.linspace(logs.min(), logs.max(), count + 1)
    bands = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, count - 1)
    picker = _Picker(candidates.shapes, taken)
    by_size = np.argsort(np.lexsort((candidates.prior, logs))).astype(float)  # ranks; of equals the better by the prior
    for known in (candidates.prior, by_size)[:count]:
        picker.pick(known)
    for band in reversed(range(count)):
        if len(picker.chosen) < count and band not in bands[picker.chosen]:
            picker.pick(np.where(bands == band, _guess(candidates, rng), -np.inf))
    while len(picker.chosen) < count and picker.pick(_guess(candidates, rng)):
        continue
    return picker.chosen


def by_draws(shapes: Sequence[str], draws: Floats, taken: Sequence[str]) -> list[int]:
    """The best of each draw (rows of (count, n)) of what accuracies may be: Thompson sampling (1933).

    So a student is chosen as often as it may be the best. Gives indices, fewer than draws where shapes run out.
    """
    picker = _Picker(shapes, taken)
    for draw in draws:
        picker.pick(draw)
    return picker.chosen


def _guess(candidates: Candidates, rng: np.random.Generator) -> Floats:
    width = candidates.features.shape[1]
    direction = rng.standard_normal(width) / np.sqrt(max(width, 1))
    prior = candidates.prior - candidates.prior.mean()
    scale = prior.std() or 1.0
    return np.asarray(prior / scale + candidates.features @ direction)


class _Picker:
    """Chooses one after the other, each of a shape of its own."""

    def __init__(self, shapes: Sequence[str], taken: Sequence[str]) -> None:
        self.chosen: list[int] = []
        self._numbers = np.unique(np.asarray(shapes), return_inverse=True)[1]
        self._free = ~np.isin(np.asarray(shapes), np.asarray(list(taken), dtype=str))

    def pick(self, values: Floats) -> bool:
        """The best that is free, where any finite one is."""
        values = np.where(self._free, values, -np.inf)
        best = int(values.argmax())
        if not np.isfinite(values[best]):
            return False
        self.chosen.append(best)
        self._free &= self._numbers != self._numbers[best]
        return True
