"""What modules put out during a forward pass. Hooks live as long as the `with` block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tvt_ray.vits.blocks import Block
from tvt_ray.vits.layers import Attention


@contextmanager
def outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The list fills as the modules run."""
    seen: list[Tensor] = []

    def note(module: nn.Module, args: Any, output: Tensor) -> None:
        seen.append(output)

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def inputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The list fills as the modules run; each takes one tensor."""
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])

    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def blocks_of(student: nn.Module) -> list[Block]:
    """All transformer blocks, first to last."""
    return [module for module in student.modules() if isinstance(module, Block)]


def hidden_layers(student: nn.Module) -> list[nn.Linear]:
    """The Linears whose output goes into GELU: a ViT's only non-linear units beside softmax and norm."""
    return [block.mlp.fc1 for block in blocks_of(student)]


def attentions_of(student: nn.Module) -> list[Attention]:
    """The attention module of every block, first to last."""
    return [block.attn for block in blocks_of(student)]
