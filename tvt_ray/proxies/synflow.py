"""SynFlow (Tanaka et al. 2020, https://arxiv.org/abs/2006.05467), as a score: Abdelfattah et al. 2021 (2101.08134)."""

from __future__ import annotations

import math

from tvt_ray.proxies.passes import gradients, matrices, numbers, positive_copy, rescaled_blocks, response_to_ones
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student

LARGEST = 1e6  # of the tokens after a block: GELU and softmax see what they would see of a flow that grows freely


def synflow(student: Student, probe: Probe) -> float:
    """`synflow`: log of the sum of |weight x gradient| for an image of ones; higher is better.

    All parameters are made positive and the summed logits differentiated: one forward and one backward pass of one
    image, neither images nor labels read. The flow multiplies up from block to block and would overflow, so it is
    divided down after each, and the logarithms are added to the result's. For ViTs, LayerNorms are passed over (they
    would divide the flow away, as the paper's BatchNorms would) and GELU stays: at such inputs it is ReLU.
    """
    clone = positive_copy(student, with_norms=False)
    weights = matrices(clone)
    with rescaled_blocks(clone, LARGEST) as logs:
        response = response_to_ones(clone, probe.images)
    found = gradients(response, weights)
    flows = [(weight.detach() * gradient).abs().sum() for weight, gradient in zip(weights, found, strict=True)]
    read = numbers([*flows, *logs])
    return math.log(sum(read[: len(flows)])) + math.fsum(read[len(flows) :])
