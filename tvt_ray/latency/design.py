"""What of a space is timed: all of its parts where they are few, else those that lie furthest apart; some students."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from tvt_ray.vits import Arch, Space
from tvt_ray.vits.pieces import Part

ENUMERABLE = 5000  # spaces up to this size are gone through for their parts
NUM_DRAWN = 2000  # architectures of a larger one
MAX_PARTS = 48  # of a kind that are timed
HEAD_CLASSES = (10, 1000)  # that heads are timed with; between these their fit is nearly a line
NUM_CLASSES = 100  # of whole students


def parts_of(space: Space) -> list[Part]:
    """The different parts of a space, heads with either of HEAD_CLASSES; of a large space those of many draws."""
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(NUM_DRAWN)] if space.size() > ENUMERABLE else list(space.enumerate())
    drawn.append(space.largest_arch(NUM_CLASSES))
    return list(
        dict.fromkeys(part for arch in drawn for classes in HEAD_CLASSES for part in space.parts(arch, classes))
    )


def timed_parts(parts: Sequence[Part], most: int = MAX_PARTS) -> list[Part]:
    """All of a kind where these are `most` at most, else so many that lie furthest apart."""
    by_kind: dict[str, list[Part]] = {}
    for part in parts:
        by_kind.setdefault(part.kind, []).append(part)
    return [part for kind in by_kind.values() for part in _spread(kind, most)]


def _spread(parts: list[Part], most: int) -> list[Part]:
    """Begins with the least and the most FLOPs, then takes whatever is furthest from those taken, by log sizes."""
    if len(parts) <= most:
        return parts
    points = np.log([[1 + part.activations, 1 + part.cost.params, 1 + part.cost.flops] for part in parts])
    flops = points[:, 2]
    taken = [int(flops.argmin()), int(flops.argmax())]
    distances = np.stack([np.linalg.norm(points - points[index], axis=1) for index in taken]).min(0)
    while len(taken) < most:
        taken.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(points - points[taken[-1]], axis=1))
    return [parts[index] for index in sorted(set(taken))]


def whole_archs(space: Space, count: int) -> list[Arch]:
    """Different architectures, from fewest to most FLOPs as evenly apart as draws have them; fewer in a tiny space."""
    rng = random.Random(1)
    drawn = {space.arch_id(arch): arch for arch in (space.sample(rng) for _ in range(20 * count))}
    by_flops = sorted(drawn.values(), key=lambda arch: (space.cost(arch, NUM_CLASSES).flops, space.arch_id(arch)))
    chosen = np.unique(np.linspace(0, len(by_flops) - 1, min(count, len(by_flops))).round().astype(int))
    return [by_flops[index] for index in chosen]
