"""The neural tangent kernel's condition number, of TE-NAS (Chen et al. 2021, https://arxiv.org/abs/2102.11535)."""

from __future__ import annotations

import math

import torch

from tvt_ray.proxies.passes import gradients, logit_sum, matrices, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student

MAX_IMAGES = 16  # a gradient of every weight is held for each image


def ntk(student: Student, probe: Probe) -> float:
    """`ntk`: minus the log10 of the kernel's largest over smallest eigenvalue; higher is better.

    The kernel's entries are inner products of images' gradients of their summed logits by all convolutions' and
    Linears' weights. A forward and a backward pass for each of at most 16 images, no labels. Nothing to adapt for
    ViTs; the log keeps the ranking and makes the number readable.
    """
    weights, rows = matrices(student), []
    for image in probe.images[:MAX_IMAGES]:
        found = gradients(logit_sum(student, image[None]), weights)
        rows.append(torch.cat([gradient.flatten() for gradient in found]))
    jacobian = torch.stack(rows)
    eigenvalues = torch.linalg.eigvalsh((jacobian @ jacobian.T).double())
    least, largest = numbers([eigenvalues[0], eigenvalues[-1]])
    return -math.log10(largest / max(least, largest * torch.finfo(torch.float32).eps))
