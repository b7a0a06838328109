"""Parts as modules, to be timed: `PARTS` has what builds each kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tvt_ray.vits.blocks import NORM_EPS, Block, BlockShape, Linear
from tvt_ray.vits.parts import Part
from tvt_ray.vits.pit import Pool
from tvt_ray.vits.stems import ConvShape, Stem

NUM_CONV_SIZES = 5  # channels in and out, kernel, stride, padding
WEIGHT_STD = 0.02  # of what is timed: numbers as a student's, since denormal ones would be slow

# Sizes of a part -> the module, and the shape of its input without the axis of images
Builder: TypeAlias = Callable[..., tuple[nn.Module, tuple[int, ...]]]


class _Stem(nn.Module):
    """Convolutions, class tokens and positions."""

    def __init__(self, convs: list[ConvShape], num_prefix: int, num_positions: int) -> None:
        super().__init__()
        width = convs[-1].outputs
        self.stem = Stem(convs)
        self.prefix = nn.Parameter(torch.empty(1, num_prefix, width)) if num_prefix else None
        self.positions = nn.Parameter(torch.empty(1, num_positions, width))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, T, C)."""
        tokens: Tensor = self.stem(images)
        of_patches = self.positions.shape[1] == tokens.shape[1]
        if of_patches:
            tokens = tokens + self.positions
        if self.prefix is not None:
            tokens = torch.cat([self.prefix.expand(len(tokens), -1, -1), tokens], 1)
        return tokens if of_patches else tokens + self.positions


class _Pool(nn.Module):
    """Pooling of a map whose size is known."""

    def __init__(self, inputs: int, outputs: int, map_size: int) -> None:
        super().__init__()
        self.pool, self.map_size = Pool(inputs, outputs), map_size

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + H x W, C) -> (B, 1 + H/2 x W/2, C')."""
        return self.pool(tokens, self.map_size)  # type: ignore[no-any-return]


class _Head(nn.Module):
    """Norm, mean and classifier."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm, self.classifier = nn.LayerNorm(width, NORM_EPS), Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, classes)."""
        return self.classifier(self.norm(tokens).mean(1))  # type: ignore[no-any-return]


def _block(
    tokens: int, dim: int, heads: int, attention_dim: int, hidden_dim: int, relative: bool = False
) -> tuple[nn.Module, tuple[int, ...]]:
    shape = BlockShape(dim, heads, attention_dim, hidden_dim, relative)
    return Block(shape, map_size=math.isqrt(tokens), drop_path=0.0), (tokens, dim)


def _relative_block(*sizes: int) -> tuple[nn.Module, tuple[int, ...]]:
    return _block(*sizes, relative=True)  # type: ignore[arg-type, misc]


def _stem(image_size: int, num_prefix: int, num_positions: int, *convs: int) -> tuple[nn.Module, tuple[int, ...]]:
    shapes = [ConvShape(*convs[i : i + NUM_CONV_SIZES]) for i in range(0, len(convs), NUM_CONV_SIZES)]
    return _Stem(shapes, num_prefix, num_positions), (shapes[0].inputs, image_size, image_size)


def _pool(inputs: int, outputs: int, map_size: int) -> tuple[nn.Module, tuple[int, ...]]:
    return _Pool(inputs, outputs, map_size), (1 + map_size**2, inputs)


def _head(num_normed: int, width: int, num_classes: int) -> tuple[nn.Module, tuple[int, ...]]:
    return _Head(width, num_classes), (num_normed, width)


PARTS: dict[str, Builder] = {
    "patches": _stem,
    "conv_stem": _stem,
    "block": _block,
    "relative_block": _relative_block,
    "pool": _pool,
    "head": _head,
}


def build_part(part: Part, device: torch.device | str = "cpu") -> tuple[nn.Module, tuple[int, ...]]:
    """The module in eval mode, with some weights, and the shape of its input without the axis of images."""
    with torch.device(device), torch.no_grad():
        module, shape = PARTS[part.kind](*part.sizes)
        for parameter in module.parameters():
            parameter.normal_(0, WEIGHT_STD)
    return module.eval(), shape
