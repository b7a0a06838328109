"""The pieces behind the stem: blocks, the pools between them, and heads. Their parameters have the names of timm's.

Shape suffixes: B = images, T = tokens, C = channels, H, W = map axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from tvt_ray.vits import kernels
from tvt_ray.vits.layers import NORM_EPS, NUM_RELATIVE_ENTRIES, Attention, Conv2d, Linear, Mlp, drop_images
from tvt_ray.vits.pieces import Cost, Part, Piece, add_costs, conv_output_size, linear_cost

POOL_KERNEL, POOL_STRIDE, POOL_PADDING = 3, 2, 1


class Block(Piece):
    """Pre-norm transformer block with stochastic depth on both branches.

    Sizes: tokens, their channels, heads, channels over all heads, channels in the MLP.
    """

    kind = "block"
    relative = False

    # What the axes of its parameters count, for whoever takes some of each: channels of tokens (c), of all heads (a),
    # of queries, keys and values (qkv), of the MLP (h), of one head (d), and entries of a table, which are all taken.
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm1.weight": ("c",),
        "norm1.bias": ("c",),
        "attn.qkv.weight": ("qkv", "c"),
        "attn.qkv.bias": ("qkv",),
        "attn.proj.weight": ("c", "a"),
        "attn.proj.bias": ("c",),
        "norm2.weight": ("c",),
        "norm2.bias": ("c",),
        "mlp.fc1.weight": ("h", "c"),
        "mlp.fc1.bias": ("h",),
        "mlp.fc2.weight": ("c", "h"),
        "mlp.fc2.bias": ("c",),
    }

    def __init__(self, tokens: int, dim: int, num_heads: int, attention_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.map_size = math.isqrt(tokens)  # patches along an axis: a class token beside them does not change it
        self.norm1 = nn.LayerNorm(dim, NORM_EPS)
        self.attn = Attention(dim, num_heads, attention_dim, self.map_size if self.relative else None)
        self.norm2 = nn.LayerNorm(dim, NORM_EPS)
        self.mlp = Mlp(dim, hidden_dim)
        self.drop_path = 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        tokens = tokens + self._drop(self.attn(self.norm1(tokens)))
        return tokens + self._drop(self.mlp(self.norm2(tokens)))

    def infer(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C); what it is given is contiguous, and may be written over."""
        tokens = kernels.linear_add(self.attn.infer(kernels.norm(tokens, self.norm1)), self.attn.proj, tokens)
        return kernels.add_mlp(tokens, self.norm2, self.mlp.fc1, self.mlp.fc2)

    def _drop(self, branch: Tensor) -> Tensor:
        return drop_images(branch, self.drop_path) if self.training and self.drop_path else branch

    @classmethod
    @functools.cache  # every architecture of a space is made of the same few
    def part(cls, tokens: int, dim: int, num_heads: int, attention_dim: int, hidden_dim: int) -> Part:
        """Four Linears, two LayerNorms, attention's two products; and what GELU and the two sums read and write."""
        linears = (dim, 3 * attention_dim), (attention_dim, dim), (dim, hidden_dim), (hidden_dim, dim)
        norms, products = Cost(4 * dim, 0), Cost(0, 2 * tokens * tokens * attention_dim)
        cost = add_costs([*(linear_cost(tokens, *each) for each in linears), norms, products])
        values = tokens * (14 * dim + 8 * attention_dim + 4 * hidden_dim) + 2 * num_heads * tokens**2
        sizes = (tokens, dim, num_heads, attention_dim, hidden_dim)
        return Part(cls.kind, sizes, cost, values, (tokens, dim), cls)


class RelativeBlock(Block):
    """With relative positions: two tables (rows, columns) for keys and two for values; a product more of each."""

    kind = "relative_block"
    relative = True
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **Block.axes,
        "attn.relative_keys.rows": ("all", "d"),
        "attn.relative_keys.columns": ("all", "d"),
        "attn.relative_values.rows": ("all", "d"),
        "attn.relative_values.columns": ("all", "d"),
    }

    @classmethod
    @functools.cache
    def part(cls, tokens: int, dim: int, num_heads: int, attention_dim: int, hidden_dim: int) -> Part:
        """A block's, with the tables, and products over all pairs of tokens."""
        block = super().part(tokens, dim, num_heads, attention_dim, hidden_dim)
        head_dim = attention_dim // num_heads
        more = Cost(4 * NUM_RELATIVE_ENTRIES * head_dim, 2 * tokens * tokens * attention_dim)
        values = block.activations + 2 * tokens**2 * (head_dim + num_heads)
        return block._replace(cost=add_costs([block.cost, more]), activations=values)


class Pool(Piece):
    """Halves the map with a depthwise convolution and widens the class token to match.

    Sizes: channels before and after, patches along an axis before.
    """

    kind = "pool"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {  # channels before and after, as Block.axes has its own
        "conv.weight": ("after",),
        "conv.bias": ("after",),
        "fc.weight": ("after", "before"),
        "fc.bias": ("after",),
    }

    def __init__(self, inputs: int, outputs: int, map_size: int) -> None:
        super().__init__()
        self.map_size = map_size
        self.conv = Conv2d(inputs, outputs, POOL_KERNEL, POOL_STRIDE, POOL_PADDING, groups=inputs)
        self.fc = Linear(inputs, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + H x W, C) -> (B, 1 + H/2 x W/2, C')."""
        patches = self.conv(tokens_to_map(tokens, self.map_size)).flatten(2).transpose(1, 2)
        return torch.cat([self.fc(tokens[:, :1]), patches], 1)

    def infer(self, tokens: Tensor) -> Tensor:
        """(B, 1 + H x W, C) -> (B, 1 + H/2 x W/2, C')."""
        patches = kernels.conv(tokens_to_map(tokens, self.map_size), self.conv).flatten(2).transpose(1, 2)
        return torch.cat([kernels.linear(tokens[:, :1], self.fc), patches], 1)

    @classmethod
    @functools.cache
    def part(cls, inputs: int, outputs: int, map_size: int) -> Part:
        """A depthwise convolution on the map, and a Linear on the class token."""
        weights, halved = outputs * POOL_KERNEL**2, cls.output_size(map_size)
        cost = add_costs([Cost(weights + outputs, halved**2 * weights), linear_cost(1, inputs, outputs)])
        values = 3 * map_size**2 * inputs + 3 * halved**2 * outputs
        return Part(cls.kind, (inputs, outputs, map_size), cost, values, (1 + map_size**2, inputs), cls)

    @staticmethod
    def output_size(map_size: int) -> int:
        """Patches along an axis after it."""
        return conv_output_size(map_size, POOL_KERNEL, POOL_STRIDE, POOL_PADDING)


class Head(Piece):
    """From tokens to logits: a norm, one vector for each image, and the classifier. Both stand at the top of a student.

    Sizes: tokens that are read, their channels, classes.
    """

    kind = "head"
    norm_name = "norm"  # as timm calls it

    def __init__(self, num_read: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(width, NORM_EPS), Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, classes)."""
        return self.head(self.pooled(tokens, self.norm))  # type: ignore[no-any-return]

    @staticmethod
    def pooled(tokens: Tensor, norm: nn.Module) -> Tensor:
        """What the classifier reads: (B, T, C) -> (B, C)."""
        raise NotImplementedError

    @classmethod
    @functools.cache
    def part(cls, num_read: int, width: int, num_classes: int) -> Part:
        """A LayerNorm of so many tokens, their mean, and a Linear."""
        cost = add_costs([Cost(2 * width, 0), linear_cost(1, width, num_classes)])
        values = 3 * num_read * width + num_classes
        return Part(cls.kind, (num_read, width, num_classes), cost, values, (num_read, width), cls)


class TokenHead(Head):
    """Reads the class token."""

    @staticmethod
    def pooled(tokens: Tensor, norm: nn.Module) -> Tensor:
        """The class token, normalised."""
        return norm(tokens[:, 0])  # type: ignore[no-any-return]


class PatchesHead(Head):
    """Reads the patch tokens; a class token stands before them."""

    @staticmethod
    def pooled(tokens: Tensor, norm: nn.Module) -> Tensor:
        """The mean of the normalised tokens."""
        return norm(tokens)[:, 1:].mean(1)  # type: ignore[no-any-return]


class MeanHead(Head):
    """Reads all tokens; there is no class token among them."""

    norm_name = "fc_norm"

    @staticmethod
    def pooled(tokens: Tensor, norm: nn.Module) -> Tensor:
        """Their mean, normalised."""
        return norm(tokens.mean(1))  # type: ignore[no-any-return]


def tokens_to_map(tokens: Tensor, map_size: int) -> Tensor:
    """(B, T, C) -> (B, C, H, W): the last H x W tokens. A class token stands before them and is dropped."""
    images, _, channels = tokens.shape
    return tokens[:, -(map_size**2) :].transpose(1, 2).reshape(images, channels, map_size, map_size)
