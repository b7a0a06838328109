"""Zen-score (Lin et al. 2021, https://arxiv.org/abs/2102.01063)."""

from __future__ import annotations

import math

import torch
from torch import nn

from tvt_ray.proxies.passes import inputs_of, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student

PERTURBATION = 0.01
SEED = 0


@torch.no_grad()
def zen(student: Student, probe: Probe) -> float:
    """`zen`: log of how far the last block's output moves when Gaussian inputs do, plus the norms'; higher is better.

    log of the Frobenius norm of f(x + 0.01 e) - f(x), x and e standard normal of the probe's shape, plus for each
    norm the log of the standard deviation that it divides by. Two forward passes; neither images nor labels are read.
    The paper adds BatchNorm's deviations, which its unnormalised networks would otherwise multiply up; LayerNorm
    stands in for it here, though it normalises a branch and not the trunk.
    """
    generator = torch.Generator().manual_seed(SEED)
    shape, device = probe.images.shape, probe.images.device
    inputs, noise = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    last = student.num_blocks - 1
    norms = [module for module in student.modules() if isinstance(module, nn.LayerNorm)]
    with inputs_of(norms) as normalised:
        plain = student.feature_maps(inputs, (last,))[last]
    moved = student.feature_maps(inputs + PERTURBATION * noise, (last,))[last]
    distance, *deviations = numbers([(moved - plain).norm(), *(tokens.std(-1).mean() for tokens in normalised)])
    return math.log(distance) + sum(map(math.log, deviations))
