"""Jacobian covariance (Mellor et al. 2020, https://arxiv.org/abs/2006.04647v1; Abdelfattah et al. 2021, 2101.08134)."""

from __future__ import annotations

import torch

from tvt_ray.proxies.passes import gradients, logit_sum
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student

EPSILON = 1e-5


def jacob_cov(student: Student, probe: Probe) -> float:
    """`jacob_cov`: how uncorrelated the images' input gradients are; higher is better.

    With v the eigenvalues of the correlation matrix (B, B) of the gradients of the summed logits: minus the sum of
    log(v + e) + 1 / (v + e), e = 1e-5. One forward and one backward pass, no labels. Nothing to adapt for ViTs.
    """
    images = probe.images.clone().requires_grad_()
    jacobian = gradients(logit_sum(student, images), [images])[0].flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(torch.corrcoef(jacobian)).clamp(min=0)
    return -float((torch.log(eigenvalues + EPSILON) + 1 / (eigenvalues + EPSILON)).sum())
