"""TVT's student capability with the logarithm of each norm: not of a paper (docs/proxies.md has the measurements)."""

from __future__ import annotations

import math

import torch

from tvt_ray.proxies.passes import norms
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


@torch.inference_mode()
def log_norm(student: Student, probe: Probe) -> float:
    """`log_norm`: the sum of log L2 norms of the student's weights; higher is better. No forward pass, no labels.

    The log of the product of the norms, where `l2_norm` is their sum: it counts layers rather than widths. Over every
    convolution and Linear, patch embedding and classifier included, biases not.
    """
    return math.fsum(map(math.log, norms(student)))
