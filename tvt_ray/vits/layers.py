"""The layers that pieces are made of.

Shape suffixes: B = images, T = tokens, C = channels, H, W = map axes, N = heads, D = channels per head.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvt_ray.vits import kernels

NORM_EPS = 1e-6

# AutoFormer's distances are clipped at 14 patches, in both directions, with one more entry for the class token.
MAX_RELATIVE_DISTANCE = 14
NUM_RELATIVE_ENTRIES = 2 * MAX_RELATIVE_DISTANCE + 2


class Linear(nn.Linear):
    """An nn.Linear without PyTorch's own initialisation, which `init_weights` would draw over.

    Once made it is of PyTorch's own class: quantisation and exporters look for that, and pass over subclasses.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.__class__ = nn.Linear  # type: ignore[assignment]

    def reset_parameters(self) -> None:
        """Weights stay as allocated until `init_weights`."""


class Conv2d(nn.Conv2d):
    """An nn.Conv2d without PyTorch's own initialisation; once made of PyTorch's own class too."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, stride: int, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel_size, stride, padding, groups=groups)
        self.__class__ = nn.Conv2d  # type: ignore[assignment]

    def reset_parameters(self) -> None:
        """Weights stay as allocated until `init_weights`."""


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

    def __init__(self, dim: int, num_heads: int, attention_dim: int, relative_map: int | None = None) -> None:
        """`attention_dim`: of the queries over all heads. `relative_map`: patches along an axis; None: no tables."""
        super().__init__()
        self.num_heads, head_dim = num_heads, attention_dim // num_heads
        self.qkv = Linear(dim, 3 * attention_dim)
        self.proj = Linear(attention_dim, dim)
        self.relative_keys = RelativePosition(relative_map, head_dim) if relative_map else None
        self.relative_values = RelativePosition(relative_map, head_dim) if relative_map else None

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        queries, keys, values = self._heads(self.qkv(tokens))
        if self.relative_values is None:
            mixed = F.scaled_dot_product_attention(queries, keys, values)
        else:
            mixed = self._relative_mix(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def infer(self, tokens: Tensor) -> Tensor:
        """As forward without the output projection, in fused kernels: (B, T, C) -> (B, T, N x D)."""
        queries, keys, values = self._heads(kernels.linear(tokens, self.qkv))
        relative = self.relative_values is not None
        mixed = (self._relative_mix if relative else kernels.attend)(queries, keys, values)
        return mixed.transpose(1, 2).flatten(2)

    def probabilities(self, tokens: Tensor) -> Tensor:
        """How each token's attention is shared out: (B, T, C) -> (B, N, T, T), rows summing to 1."""
        queries, keys, _ = self._heads(self.qkv(tokens))
        return self._weights(queries, keys)

    def _heads(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, N, T, D), of what `qkv` gives."""
        images, tokens, _ = projected.shape
        queries, keys, values = projected.view(images, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return queries, keys, values

    def _relative_mix(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        assert self.relative_values is not None
        weights = self._weights(queries, keys)
        relative = self.relative_values().to(values.dtype)
        return weights @ values + torch.einsum("bnts,tsd->bntd", weights, relative)

    def _weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries = queries / math.sqrt(queries.shape[-1])
        logits = queries @ keys.transpose(-2, -1)
        if self.relative_keys is not None:
            logits = logits + torch.einsum("bntd,tsd->bnts", queries, self.relative_keys().to(queries.dtype))
        return logits.softmax(-1)


class Mlp(nn.Module):
    """Linear, GELU, Linear; every token by itself."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.fc2(F.gelu(self.fc1(tokens)))  # type: ignore[no-any-return]


# rank, world size and batch size, where images are shared out
_share: ContextVar[tuple[int, int, int] | None] = ContextVar("share", default=None)


@contextlib.contextmanager
def shared_out(rank: int, world_size: int, batch_size: int) -> Iterator[None]:
    """Within the block, images are every `world_size`-th of a batch from the `rank`-th on.

    Stochastic depth then drops the images that it would drop if one worker had them all, given equal seeds.
    """
    token = _share.set((rank, world_size, batch_size) if world_size > 1 else None)
    try:
        yield
    finally:
        _share.reset(token)


def drop_images(branch: Tensor, rate: float) -> Tensor:
    """Drops the branch of a block for whole images, as one does while training (Huang et al. 2016).

    timm's DropPath does the same; importing timm in every scoring worker costs more than these lines.
    """
    rank, world_size, batch_size = _share.get() or (0, 1, branch.shape[0])
    mask = branch.new_empty(batch_size, 1, 1).bernoulli_(1 - rate)
    return branch * (mask[rank::world_size] / (1 - rate))
