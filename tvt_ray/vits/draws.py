"""Random numbers for weights: drawn once per process and seed, then sliced per architecture.

Drawing each architecture's own numbers took 4 to 7 % of scoring an AutoFormer at 224 pixels, and more of a small one.
Here the numbers of an architecture start at an offset fixed by its id, and its tensors follow one another without
overlap: within an architecture they are as independent as if drawn for it alone. Other architectures read other
stretches of the same sequence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

INIT_STD = 0.02  # of every normal draw: the pool holds it, so that such weights are slices of it and cost nothing
SCHEME = "pool-1"  # to be changed with what is drawn: readings kept from before are then not taken for new ones

_BLOCK = 2**20  # numbers with a seed of their own: number i does not depend on how far a pool has grown
_NUM_STARTS = 2**16  # places where an architecture may start
_ALIGNMENT = 16  # floats in a cache line; slices start at one, since matrix products read them


def hash_bits(text: str) -> int:
    """63 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class NumberPool:
    """An endless sequence of draws of one kind, made as far as it was asked for. Nothing may write to its slices."""

    def __init__(self, key: str, fill: Callable[[Tensor, torch.Generator], object], device: torch.device) -> None:
        self.key, self.fill, self.device = key, fill, device
        self._numbers = torch.empty(0, device=device)

    def slice(self, start: int, count: int) -> Tensor:
        """Numbers `start` to `start + count`, as a view."""
        if start + count > len(self._numbers):
            self._grow(math.ceil((start + count) / _BLOCK))
        return self._numbers[start : start + count]

    def _grow(self, num_blocks: int) -> None:
        """Draws on the CPU, so that every device has the same numbers. Slices taken before stay valid."""
        numbers = torch.empty(num_blocks * _BLOCK)
        for i, block in enumerate(torch.split(numbers, _BLOCK)):
            self.fill(block, torch.Generator().manual_seed(hash_bits(f"{self.key}/{i}")))
        self._numbers = numbers.to(self.device)


class Draws:
    """The random tensors of one architecture, in the order in which they are asked for."""

    def __init__(self, normals: NumberPool, uniforms: NumberPool, start: int) -> None:
        self._pools = {"normal": normals, "uniform": uniforms}
        self._next = {"normal": start, "uniform": start}

    def normal(self, shape: Sequence[int]) -> Tensor:
        """From normal(0, INIT_STD); a view that nothing may write to."""
        return self._take("normal", shape)

    def uniform(self, shape: Sequence[int], bound: float) -> Tensor:
        """From uniform(-bound, bound)."""
        return self._take("uniform", shape) * bound

    def _take(self, kind: str, shape: Sequence[int]) -> Tensor:
        start, count = self._next[kind], math.prod(shape)
        self._next[kind] = start + math.ceil(count / _ALIGNMENT) * _ALIGNMENT
        return self._pools[kind].slice(start, count).view(tuple(shape))


@lru_cache(maxsize=2)
def _pools(seed: int, device: torch.device) -> tuple[NumberPool, NumberPool]:
    return (
        NumberPool(f"{SCHEME}/normal/{seed}", lambda x, g: x.normal_(0, INIT_STD, generator=g), device),
        NumberPool(f"{SCHEME}/uniform/{seed}", lambda x, g: x.uniform_(-1, 1, generator=g), device),
    )


def draws_of(seed: int, arch_id: str, draw: int = 0, device: torch.device | str = "cpu") -> Draws:
    """The numbers that a run's seed and an architecture's id fix; `draw` tells repeated initialisations apart."""
    start = hash_bits(f"{seed}/{draw}/{arch_id}") % _NUM_STARTS * _ALIGNMENT
    return Draws(*_pools(seed, torch.device(device)), start)
