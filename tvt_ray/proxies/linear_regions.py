"""Linear regions (Hanin and Rolnick 2019, https://arxiv.org/abs/1901.09021; a proxy in TE-NAS, 2102.11535)."""

from __future__ import annotations

import torch

from tvt_ray.proxies.passes import hidden_layers, numbers, outputs_of
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student

MAX_LINES = 4
POINTS_PER_LINE = 8


@torch.no_grad()
def linear_regions(student: Student, probe: Probe) -> float:
    """`linear_regions`: region boundaries crossed on straight lines between images, mean per line; higher is better.

    A boundary is crossed where a unit changes sign between neighbouring points of a line. TE-NAS counts the distinct
    patterns of thousands of inputs to a tiny ReLU network; a ViT has so many units that all patterns differ and that
    count is the number of inputs, so crossings are counted instead. Units are GELU's inputs, of every token. Forward
    passes of at most 32 points; no labels.
    """
    count = max(1, min(MAX_LINES, len(probe.images) // 2))
    starts, ends = probe.images[:count], probe.images[-count:]
    share = torch.linspace(0, 1, POINTS_PER_LINE, device=starts.device)[None, :, None, None, None]
    points = starts[:, None] * (1 - share) + ends[:, None] * share  # (lines, points, 3, S, S)
    with outputs_of(hidden_layers(student)) as activations:
        student(points.flatten(0, 1))
    crossings = []
    for activation in activations:
        signs = (activation > 0).reshape(count, POINTS_PER_LINE, -1)
        crossings.append((signs[:, 1:] != signs[:, :-1]).sum())
    return sum(numbers(crossings)) / count
