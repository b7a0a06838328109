"""The rank of a student's weights: not of a paper, but what ranked well as student capability (docs/proxies.md)."""

from __future__ import annotations

from torch import nn

from tvt_ray.proxies.passes import blocks_of
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def rank_sum(student: Student, probe: Probe) -> float:
    """`rank_sum`: the sum of the squared ranks of the blocks' weight matrices; higher is better.

    No forward pass, no labels.
    A rank squared is the size of the largest invertible part of a matrix. A matrix drawn from a continuous distribution
    has full rank with probability one, so its rank is its smaller side and nothing is decomposed; unlike norms, it does
    not depend on how weights are initialised.
    """
    linears = [layer for block in blocks_of(student) for layer in block.modules() if isinstance(layer, nn.Linear)]
    return float(sum(min(linear.weight.shape) ** 2 for linear in linears))
