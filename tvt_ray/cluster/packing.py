"""How many processes machines hold: each takes cores, and a share of one GPU or whole ones, all of one node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ROUNDING = 1e-6  # so that 8 GPUs hold forty processes of 0.2


@dataclass(frozen=True)
class Node:
    """What Ray counts on a machine."""

    cpus: int
    gpus: float = 0.0


def fitting(nodes: Sequence[Node], cpus: int, gpus: float) -> int:
    """Processes of so many cores and GPUs that the nodes hold at a time. No process straddles two GPUs, unless it takes
    whole ones, and none two nodes.
    """
    return sum(_on(node, cpus, gpus) for node in nodes)


def most_cores(nodes: Sequence[Node], gpus: float, count: int) -> int:
    """That each of `count` processes with so many GPUs can have; 0: not even one."""
    largest = max((node.cpus for node in nodes), default=0)
    return next((cpus for cpus in range(largest, 0, -1) if fitting(nodes, cpus, gpus) >= count), 0)


def _on(node: Node, cpus: int, gpus: float) -> int:
    by_cores = node.cpus // cpus
    if not gpus:
        return by_cores
    if gpus <= 1:
        return min(by_cores, int(node.gpus) * math.floor(1 / gpus + ROUNDING))
    return min(by_cores, math.floor(node.gpus / gpus + ROUNDING))
