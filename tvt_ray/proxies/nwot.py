"""NASWOT (Mellor et al. 2021, https://arxiv.org/abs/2006.04647)."""

from __future__ import annotations

import torch

from tvt_ray.proxies.passes import hidden_layers, outputs_of
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


@torch.no_grad()
def nwot(student: Student, probe: Probe) -> float:
    """`nwot`: log-determinant of how alike images switch units; higher is better.

    The kernel of two images counts the units that both switch on or both off. One forward pass, no labels. The paper
    reads ReLU; ViTs use GELU, so the sign of its input is read instead, of every token.
    """
    with outputs_of(hidden_layers(student)) as activations:
        student(probe.images)
    size = len(probe.images)
    kernel = torch.zeros(size, size, dtype=torch.float64, device=probe.images.device)
    for activation in activations:
        codes = (activation.flatten(1) > 0).to(activation.dtype)  # (B, units of all tokens), 0 or 1: sums are exact
        kernel += (codes @ codes.T + (1 - codes) @ (1 - codes).T).double()
    return float(torch.linalg.slogdet(kernel).logabsdet)
