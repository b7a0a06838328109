"""The loss that a proxy differentiates, and its gradients; nothing is left on the student.

Scaled dot-product attention runs in its plain ("math") form here: the fused kernels have no second derivative, and the
gradients of the plain one are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def matrices(student: nn.Module) -> list[Tensor]:
    """Weights of every convolution and Linear, in the order in which modules were made; `l2_norm` sums over them."""
    return [m.weight for m in student.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def norms(student: nn.Module) -> list[float]:
    """L2 norms of `matrices`, read from the device at once."""
    return [float(norm) for norm in torch.stack([weight.detach().norm() for weight in matrices(student)]).tolist()]


def gradients(value: Tensor, inputs: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Of a scalar; zeros where it does not depend on an input."""
    found = torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def cross_entropy(student: Student, images: Tensor, labels: Tensor) -> Tensor:
    """Mean over the images (B, 3, H, W) with labels (B,), differentiable twice."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.cross_entropy(student(images), labels)


def loss_gradients(student: Student, probe: Probe) -> list[Tensor]:
    """Of the probe's mean cross-entropy, by `matrices`."""
    return gradients(cross_entropy(student, probe.images, probe.labels), matrices(student))
