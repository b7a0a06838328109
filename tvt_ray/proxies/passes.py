"""What proxies share: a student's passes, forward and backward, and what modules put in and out on the way.

Scaled dot-product attention runs in its plain ("math") form in what is differentiated: the fused kernels have no second
derivative, and the gradients of the plain one are the same on every machine. Nothing is left on the student, and hooks
live as long as the `with` block.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.blocks import Block
from tvt_ray.vits.student import Student


def matrices(student: nn.Module) -> list[Tensor]:
    """Weights of every convolution and Linear, in the order in which modules were made; `l2_norm` sums over them."""
    return [m.weight for m in student.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def numbers(scalars: Sequence[Tensor]) -> list[float]:
    """Of tensors with a value each, of one type and device: read from the device at once, which waits for it once."""
    return [float(value) for value in torch.stack(list(scalars)).tolist()] if scalars else []


def norms(student: nn.Module) -> list[float]:
    """L2 norms of `matrices`, read from the device at once."""
    return numbers([weight.detach().norm() for weight in matrices(student)])


def gradients(value: Tensor, inputs: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Of a scalar; zeros where it does not depend on an input."""
    found = torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def cross_entropy(student: Student, images: Tensor, labels: Tensor) -> Tensor:
    """Mean over the images (B, 3, H, W) with labels (B,), differentiable twice."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.cross_entropy(student(images), labels)


def logit_sum(student: Student, images: Tensor) -> Tensor:
    """Over images and classes, differentiable twice."""
    with sdpa_kernel(SDPBackend.MATH):
        return student(images).sum()  # type: ignore[no-any-return]


def loss_gradients(student: Student, probe: Probe) -> list[Tensor]:
    """Of the probe's mean cross-entropy, by `matrices`."""
    return gradients(cross_entropy(student, probe.images, probe.labels), matrices(student))


@contextmanager
def outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The list fills as the modules run."""
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(lambda module, args, output: seen.append(output)))
        yield seen


@contextmanager
def inputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The list fills as the modules run; each takes one tensor."""
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
        yield seen


def blocks_of(student: nn.Module) -> list[Block]:
    """All transformer blocks, first to last."""
    return [module for module in student.modules() if isinstance(module, Block)]


def hidden_layers(student: nn.Module) -> list[nn.Linear]:
    """The Linears whose output goes into GELU: a ViT's only non-linear units beside softmax and norm."""
    return [block.mlp.fc1 for block in blocks_of(student)]


def positive_copy(student: Student, with_norms: bool) -> Student:
    """Absolute values of all parameters; without norms, LayerNorms pass their input on, as their gain of 1 would."""
    clone: Student = copy.deepcopy(student).double()
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.abs_()
    if not with_norms:
        for module in list(clone.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.LayerNorm):
                    setattr(module, name, nn.Identity())
    return clone


def response_to_ones(student: Student, images: Tensor) -> Tensor:
    """The sum of logits for one image of ones, of the size of `images` (B, 3, S, S)."""
    return logit_sum(student, torch.ones_like(images[:1], dtype=torch.float64))


@contextmanager
def rescaled_blocks(student: Student, largest: float) -> Iterator[list[Tensor]]:
    """After each block, tokens are divided so that their largest is `largest`; the list takes the divisors' logs.

    The divisors are constants to the gradient: gradients come out divided by the product of all of them.
    """
    logs: list[Tensor] = []

    def rescale(module: nn.Module, args: Any, tokens: Tensor) -> Tensor:
        divisor = tokens.detach().abs().max() / largest
        logs.append(divisor.log())
        return tokens / divisor

    with ExitStack() as hooks:
        for block in blocks_of(student):
            hooks.enter_context(block.register_forward_hook(rescale))
        yield logs
