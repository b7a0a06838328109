"""GraSP (Wang et al. 2020, https://arxiv.org/abs/2002.07376), as a score: Abdelfattah et al. 2021 (2101.08134)."""

from __future__ import annotations

import torch

from tvt_ray.proxies.passes import cross_entropy, gradients, matrices, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def grasp(student: Student, probe: Probe) -> float:
    """`grasp`: minus the sum of weight x (Hessian x gradient) of the cross-entropy; higher is better.

    One forward pass and two backward passes, the second through the first. GELU is twice differentiable, so nothing is
    adapted; attention runs in its plain form, the only one that is.
    """
    weights = matrices(student)
    first = gradients(cross_entropy(student, probe.images, probe.labels), weights, create_graph=True)
    # The gradient of g . stop(g) is the Hessian times g.
    product = torch.stack([(gradient * gradient.detach()).sum() for gradient in first]).sum()
    second = gradients(product, weights)
    return -sum(numbers([(w.detach() * hg).sum() for w, hg in zip(weights, second, strict=True)]))
