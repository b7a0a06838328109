"""Gradient norm (Abdelfattah et al. 2021, https://arxiv.org/abs/2101.08134)."""

from __future__ import annotations

from tvt_ray.proxies.passes import loss_gradients, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def grad_norm(student: Student, probe: Probe) -> float:
    """`grad_norm`: sum over convolutions and Linears of the gradient's L2 norm; higher is better.

    One forward and one backward pass of the cross-entropy. Nothing to adapt for ViTs.
    """
    return sum(numbers([gradient.norm() for gradient in loss_gradients(student, probe)]))
