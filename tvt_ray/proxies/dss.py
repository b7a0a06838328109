"""DSS-indicator of TF-TAS (Zhou et al. 2022, https://arxiv.org/abs/2203.12217): made for ViTs, nothing is adapted."""

from __future__ import annotations

import torch

from tvt_ray.proxies.passes import blocks_of, gradients, numbers, positive_copy, response_to_ones
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def dss(student: Student, probe: Probe) -> float:
    """`dss`: synaptic diversity of attention plus synaptic saliency of the MLPs; higher is better.

    With all parameters positive, norms kept, and the summed logits of an image of ones differentiated: for each Linear
    of the attention, the nuclear norm of its weight times that of its gradient; for each Linear of the MLP, the sum of
    weight x gradient. One forward and one backward pass of one image, and a singular value decomposition per matrix.
    """
    clone = positive_copy(student, with_norms=True)
    blocks = blocks_of(clone)
    attention = [layer.weight for block in blocks for layer in (block.attn.qkv, block.attn.proj)]
    mlp = [layer.weight for block in blocks for layer in (block.mlp.fc1, block.mlp.fc2)]
    found = gradients(response_to_ones(clone, probe.images), [*attention, *mlp])
    diverse = [
        torch.linalg.matrix_norm(weight.detach(), "nuc") * torch.linalg.matrix_norm(gradient, "nuc")
        for weight, gradient in zip(attention, found[: len(attention)], strict=True)
    ]
    pairs = zip(mlp, found[len(attention) :], strict=True)
    salient = [(weight.detach() * gradient).abs().sum() for weight, gradient in pairs]
    return sum(numbers([*diverse, *salient]))
