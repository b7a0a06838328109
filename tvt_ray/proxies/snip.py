"""SNIP (Lee et al. 2019, https://arxiv.org/abs/1810.02340), as a score: Abdelfattah et al. 2021 (2101.08134)."""

from __future__ import annotations

from tvt_ray.proxies.passes import loss_gradients, matrices, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def snip(student: Student, probe: Probe) -> float:
    """`snip`: sum of |weight x gradient| of the cross-entropy; higher is better.

    One forward and one backward pass. Nothing to adapt for ViTs: all convolutions and Linears are read, norms are not.
    """
    pairs = zip(matrices(student), loss_gradients(student, probe), strict=True)
    return sum(numbers([(weight.detach() * gradient).abs().sum() for weight, gradient in pairs]))
