"""From measured times to numbers that predict: non-negative least squares of relative errors.

What is added up is what a roofline counts (Williams et al. 2009, https://doi.org/10.1145/1498765.1498785): arithmetic,
weights that are fetched once, values that are read and written, and an overhead. Non-negative, so that more of anything
is never predicted to be faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from tvt_ray.latency.profile import Error, PartFit, WholeFit
from tvt_ray.vits.pieces import Part

_MILLION = 1e6


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
    weights = _solve([whole_terms(each) for each in parts_ms], times_ms)
    return WholeFit(**dict(zip(WholeFit.model_fields, weights, strict=True)))


def whole_terms(parts_ms: float) -> tuple[float, ...]:
    """What the fields of WholeFit are multiplied with."""
    return 1.0, parts_ms


def _solve(terms: Sequence[Sequence[float]], times_ms: Sequence[float]) -> list[float]:
    """Weights, none below 0, of least squared relative error. Columns are scaled for the rounding alone."""
    relative = np.asarray(terms, float) / np.asarray(times_ms, float)[:, None]
    scale = np.abs(relative).max(0)
    scale[scale == 0] = 1
    weights: NDArray[np.float64] = nnls(relative / scale, np.ones(len(times_ms)))[0]
    return [float(weight) for weight in weights / scale]


def relative_error(predicted: ArrayLike, measured: ArrayLike) -> Error:
    """Of at least one pair."""
    errors = np.abs(np.asarray(predicted) - np.asarray(measured)) / np.asarray(measured)
    return Error(num=errors.size, median=float(np.median(errors)), worst=float(errors.max()))
