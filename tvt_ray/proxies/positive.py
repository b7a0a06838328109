"""The student with every parameter positive, as SynFlow and DSS read it: a copy in double precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tvt_ray.proxies.recording import blocks_of
from tvt_ray.vits.student import Student


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
    with sdpa_kernel(SDPBackend.MATH):
        response: Tensor = student(torch.ones_like(images[:1], dtype=torch.float64)).sum()
        return response


@contextmanager
def rescaled_blocks(student: Student, largest: float) -> Iterator[list[float]]:
    """After each block, tokens are divided so that their largest is `largest`; the list takes the divisors' logs.

    The divisors are constants to the gradient: gradients come out divided by the product of all of them.
    """
    logs: list[float] = []

    def rescale(module: nn.Module, args: Any, tokens: Tensor) -> Tensor:
        divisor = tokens.detach().abs().max() / largest
        logs.append(float(divisor.log()))
        return tokens / divisor

    hooks = [block.register_forward_hook(rescale) for block in blocks_of(student)]
    try:
        yield logs
    finally:
        for hook in hooks:
            hook.remove()
