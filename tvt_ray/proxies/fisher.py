"""Fisher (Theis et al. 2018, https://arxiv.org/abs/1801.05787; Turner et al. 2020, https://arxiv.org/abs/1906.04113)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tvt_ray.proxies.passes import cross_entropy, gradients, numbers, outputs_of
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def fisher(student: Student, probe: Probe) -> float:
    """`fisher`: what removing each channel would cost the loss, summed over channels; higher is better.

    Per channel of each convolution's and Linear's output: half the mean over images of (sum over positions of
    activation x gradient) squared. One forward and one backward pass. For ViTs, tokens take the place of positions.
    """
    layers = [module for module in student.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with outputs_of(layers) as activations:
        loss = cross_entropy(student, probe.images, probe.labels)
    found = gradients(loss, activations)
    pairs = zip(activations, found, strict=True)
    # The loss is a mean over images; times B makes the gradient each image's own.
    return sum(numbers([_channels(a.detach(), g * len(probe.images)) for a, g in pairs]))


def _channels(activation: Tensor, gradient: Tensor) -> Tensor:
    product = activation * gradient
    if product.ndim == 4:  # (B, C, H, W) of a convolution; Linears give (B, T, C) or (B, C)
        product = product.flatten(2).mT
    per_image = product.reshape(len(product), -1, product.shape[-1]).sum(1)  # (B, C)
    return torch.sum(per_image.square().mean(0)) / 2
