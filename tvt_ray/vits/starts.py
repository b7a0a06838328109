"""How attention and positions begin to learn where nothing is inherited: closed forms that cost no training.

Scores read students with normally drawn weights, whatever these begin with: that is what is published.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from tvt_ray.vits.layers import Attention
from tvt_ray.vits.student import Student

Positions: TypeAlias = Literal["learned", "sine"]
SINE_PERIOD = 10_000.0
NOISE, IDENTITY = (0.7, 0.4), (0.7, -0.4)  # mimetic: parts of queries x keys, and of values x projection
REACH = 1  # patches that an impulse is away from its own, along each axis, at most
SHARPNESS = 6.0  # logit by which an impulse's place is above the others


def begin(student: Student, start: str, positions: Positions, seed: int) -> None:
    """Gives every block's attention its first weights, and the student its positions; sine ones are not learned.

    `start`: a row of STARTS. Raises ValueError for one that the student cannot have.
    """
    generator = torch.Generator().manual_seed(seed)
    places: Any = student.pos_embed
    if positions == "sine":
        if places.ndim != 3:
            raise ValueError("distill.positions: sine is for students that add positions to tokens; PiT's are a map")
        num_prefix = 0 if student.cls_token is None else student.cls_token.shape[1]
        places.data = sine_positions(math.isqrt(places.shape[1] - num_prefix), places.shape[2], num_prefix)
        places.requires_grad_(False)
    with torch.no_grad():
        for block in student.attention_blocks:
            STARTS[start](block.attn, block.map_size, generator)


def takes_sine(widths: Iterable[int]) -> bool:
    """Whether sine positions can have these widths."""
    return all(width % 4 == 0 for width in widths)


def sine_positions(side: int, width: int, num_prefix: int = 0) -> Tensor:
    """(1, prefix + side^2, width): sines and cosines of row and column, as in MAE (He et al. 2022); prefixes have 0.

    Raises ValueError for a width that is no multiple of 4.
    """
    if not takes_sine([width]):
        raise ValueError(f"distill.positions: sine needs an embed_dim that is a multiple of 4; got {width}")
    rates = SINE_PERIOD ** (-torch.arange(width // 4) / (width // 4))
    axis = torch.arange(side).float()
    rows, columns = (each.flatten()[:, None] * rates for each in torch.meshgrid(axis, axis, indexing="ij"))
    found = torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], 1)
    return torch.cat([torch.zeros(num_prefix, width), found])[None]


def normal(attention: Attention, side: int, generator: torch.Generator) -> None:
    """As it was drawn: the published start."""


def mimetic(attention: Attention, side: int, generator: torch.Generator) -> None:
    """Queries x keys near the identity, values x projection near its negative, as in trained ViTs.

    Trockman and Kolter 2023, https://arxiv.org/abs/2305.09828, with its 0.7, 0.7, 0.4 and 0.4.
    """
    queries, keys, values = _parts(attention)
    width, (noise, value_noise), (identity, value_identity) = values.shape[-1], NOISE, IDENTITY

    def target(noise: float, identity: float) -> Tensor:
        drawn: Tensor = noise * torch.randn(width, width, generator=generator) / width**0.5
        return drawn + identity * torch.eye(width)

    for query, key in zip(queries, keys, strict=True):
        left, right = _factors(target(noise, identity), len(query))
        query.copy_(left.T)
        key.copy_(right)
    left, right = _factors(target(value_noise, value_identity), values.shape[0] * values.shape[1])
    values.copy_(right.view_as(values))
    attention.proj.weight.copy_(left)


def conditioned(attention: Attention, side: int, generator: torch.Generator) -> None:
    """Values a rectangular identity, queries and keys semi-orthogonal: all singular values are 1.

    Conditioned initialization for attention (2026), https://openreview.net/forum?id=cKNOCYPo2W.
    """
    queries, keys, values = _parts(attention)
    for each in (*queries, *keys):
        torch.nn.init.orthogonal_(each, generator=generator)
    values.copy_(torch.eye(values.shape[0] * values.shape[1], values.shape[2]).view_as(values))


def impulse(attention: Attention, side: int, generator: torch.Generator) -> None:
    """Each head looks at one neighbour of each patch, the same for all: a convolution of random impulses.

    Structured initialization (Zheng et al. 2024, https://arxiv.org/abs/2404.01139), there by gradient descent on
    positions alone; here the best queries and keys of the heads' rank, by least squares on sine positions.
    """
    queries, keys, values = _parts(attention)
    positions = F.layer_norm(sine_positions(side, values.shape[-1] // 4 * 4)[0], (values.shape[-1] // 4 * 4,))
    positions = F.pad(positions, (0, values.shape[-1] % 4))
    inverse = torch.linalg.pinv(positions, rtol=1e-3)
    reach = range(-REACH, REACH + 1)
    neighbours = [(row, column) for row in reach for column in reach]
    random.Random(int(torch.randint(2**31, (1,), generator=generator))).shuffle(neighbours)
    scale = SHARPNESS * queries.shape[1] ** 0.5
    for head, (query, key) in enumerate(zip(queries, keys, strict=True)):
        wanted = scale * _shift(side, *neighbours[head % len(neighbours)])
        left, right = _factors(inverse @ wanted @ inverse.T, len(query))
        query.copy_(left.T)
        key.copy_(right)


def _shift(side: int, rows: int, columns: int) -> Tensor:
    """(T, T): 1 where a patch looks, the nearest one at the edge."""
    places = torch.arange(side)
    looks = (places + rows).clamp(0, side - 1)[:, None] * side + (places + columns).clamp(0, side - 1)
    return F.one_hot(looks.flatten(), side * side).float()


def _parts(attention: Attention) -> Tensor:
    """Queries, keys and values as views of the weights: (3, heads, width of one, C)."""
    weight = attention.qkv.weight
    return weight.view(3, attention.num_heads, -1, weight.shape[1])


def _factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(C, rank) and (rank, C), whose product is the nearest of this rank; those beyond C are 0."""
    left, sizes, right = torch.linalg.svd(product)
    kept, missing = min(rank, len(sizes)), max(rank - len(sizes), 0)
    root = sizes[:kept].sqrt()
    return F.pad(left[:, :kept] * root, (0, missing)), F.pad(root[:, None] * right[:kept], (0, 0, 0, missing))


# name -> what changes the drawn weights of a block's attention, of so many patches along an axis
STARTS: dict[str, Callable[[Attention, int, torch.Generator], None]] = {
    "normal": normal,
    "mimetic": mimetic,
    "impulse": impulse,
    "conditioned": conditioned,
}
