"""The transformer pieces that the spaces' models share.

Shape suffixes: B = images, T = tokens, C = channels, H, W = map axes, N = heads, D = channels per head.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvt_ray.space.autoformer import MAX_RELATIVE_DISTANCE, NUM_RELATIVE_ENTRIES

NORM_EPS = 1e-6
INIT_STD = 0.02


@dataclass(frozen=True)
class BlockShape:
    """Widths of one block; `attention_dim` is that of the queries over all heads."""

    dim: int
    num_heads: int
    attention_dim: int
    hidden_dim: int
    relative_position: bool = False


class RelativePosition(nn.Module):
    """Learned vectors for the row and column distance of two patches (Shaw et al. 2018, as in AutoFormer).

    Distances are clipped at 14; entry 0 of each table serves every pair with the class token.
    """

    def __init__(self, map_size: int, head_dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(NUM_RELATIVE_ENTRIES, head_dim))
        self.columns = nn.Parameter(torch.empty(NUM_RELATIVE_ENTRIES, head_dim))
        self.map_size = map_size

    def forward(self) -> Tensor:
        """(T, T, D) with T = map_size^2 + 1."""
        axis = torch.arange(self.map_size, device=self.rows.device)
        distance = (axis[None] - axis[:, None]).clamp(-MAX_RELATIVE_DISTANCE, MAX_RELATIVE_DISTANCE)
        entry = distance + MAX_RELATIVE_DISTANCE + 1
        rows = entry.repeat_interleave(self.map_size, 0).repeat_interleave(self.map_size, 1)
        columns = entry.repeat(self.map_size, self.map_size)
        return self.rows[F.pad(rows, (1, 0, 1, 0))] + self.columns[F.pad(columns, (1, 0, 1, 0))]


class Attention(nn.Module):
    """Multi-head self-attention, optionally with relative positions on keys and values."""

    def __init__(self, shape: BlockShape, map_size: int) -> None:
        super().__init__()
        self.num_heads, head_dim = shape.num_heads, shape.attention_dim // shape.num_heads
        self.qkv = nn.Linear(shape.dim, 3 * shape.attention_dim)
        self.proj = nn.Linear(shape.attention_dim, shape.dim)
        relative = shape.relative_position
        self.relative_keys = RelativePosition(map_size, head_dim) if relative else None
        self.relative_values = RelativePosition(map_size, head_dim) if relative else None

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        queries, keys, values = self._heads(tokens)
        if self.relative_values is None:
            mixed = F.scaled_dot_product_attention(queries, keys, values)
        else:
            weights = self._weights(queries, keys)
            mixed = weights @ values + torch.einsum("bnts,tsd->bntd", weights, self.relative_values())
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def probabilities(self, tokens: Tensor) -> Tensor:
        """How each token's attention is shared out: (B, T, C) -> (B, N, T, T), rows summing to 1."""
        queries, keys, _ = self._heads(tokens)
        return self._weights(queries, keys)

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, N, T, D)."""
        queries, keys, values = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return queries, keys, values

    def _weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries = queries / math.sqrt(queries.shape[-1])
        logits = queries @ keys.mT
        if self.relative_keys is not None:
            logits = logits + torch.einsum("bntd,tsd->bnts", queries, self.relative_keys())
        return logits.softmax(-1)


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth (Huang et al. 2016) on both branches."""

    def __init__(self, shape: BlockShape, map_size: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.dim, NORM_EPS)
        self.attention = Attention(shape, map_size)
        self.norm2 = nn.LayerNorm(shape.dim, NORM_EPS)
        self.fc1 = nn.Linear(shape.dim, shape.hidden_dim)
        self.fc2 = nn.Linear(shape.hidden_dim, shape.dim)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        tokens = tokens + self._drop(self.attention(self.norm1(tokens)))
        return tokens + self._drop(self.fc2(F.gelu(self.fc1(self.norm2(tokens)))))

    def _drop(self, branch: Tensor) -> Tensor:
        """Drops the branch for whole images while training.

        timm's DropPath does the same; importing timm in every scoring worker costs more than these lines.
        """
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        mask = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep)
        return branch * (mask / keep)


class Student(nn.Module):
    """What every student offers: logits, and the maps of the blocks that are asked for.

    Subclasses set `num_blocks`, `head` (the classifier) and `no_weight_decay` (names of parameters that are neither
    biases nor norms).
    """

    num_blocks: int
    head: nn.Linear
    no_weight_decay: frozenset[str]

    def init_weights(self, generator: torch.Generator) -> None:
        """Fills every parameter from `generator`."""
        raise NotImplementedError

    def run(
        self, images: Tensor, blocks: Collection[int], with_logits: bool
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Computes what is asked for and no more: without logits, nothing after the last block in `blocks`."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), ImageNet-normalised -> logits (B, classes)."""
        logits, _ = self.run(images, (), with_logits=True)
        assert logits is not None
        return logits

    def feature_maps(self, images: Tensor, blocks: Collection[int]) -> dict[int, Tensor]:
        """Outputs (B, C, H, W) of the numbered blocks (0 is the first), without the class token, before any norm."""
        return self.run(images, blocks, with_logits=False)[1]

    def logits_and_maps(self, images: Tensor, blocks: Collection[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Both of the above in one pass."""
        logits, maps = self.run(images, blocks, with_logits=True)
        assert logits is not None
        return logits, maps


def tokens_to_map(tokens: Tensor, map_size: int) -> Tensor:
    """(B, 1 + H x W, C) -> (B, C, H, W), dropping the class token."""
    images, _, channels = tokens.shape
    return tokens[:, 1:].mT.reshape(images, channels, map_size, map_size)


@torch.no_grad()
def init_weights(model: nn.Module, generator: torch.Generator, linear: Literal["normal", "default"]) -> None:
    """Fills every parameter from `generator`, in the order in which the modules were made.

    linear="normal": weights normal(0, 0.02), biases 0. The published code draws them with timm's `trunc_normal_`,
    which cuts at -2 and 2: a hundred standard deviations away, so no value is ever cut and a normal draw is the same.
    linear="default": PyTorch's own, uniform within 1/sqrt(fan_in), as for every convolution.
    Class token, positions and relative positions: normal(0, 0.02). Norms: 1 and 0.
    """
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1)
            module.bias.zero_()
        elif isinstance(module, nn.Linear) and linear == "normal":
            module.weight.normal_(0, INIT_STD, generator=generator)
            module.bias.zero_()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator)
        else:
            for parameter in module.parameters(recurse=False):
                parameter.normal_(0, INIT_STD, generator=generator)
