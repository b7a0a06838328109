"""What architectures cost, by arithmetic: parameters, and multiply-accumulates for one image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

IN_CHANNELS = 3  # every image is RGB; grey scans are repeated over the channels


class Cost(NamedTuple):
    """What an architecture costs, known before it is built."""

    params: int  # weights and biases, classifier included
    flops: int  # multiply-accumulates of matrix products and convolutions for one image, as ViT papers count


def conv_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Positions along one axis after a convolution."""
    return (size + 2 * padding - kernel) // stride + 1


def linear_cost(tokens: int, inputs: int, outputs: int) -> Cost:
    """A biased Linear applied to `tokens` positions."""
    return Cost(inputs * outputs + outputs, tokens * inputs * outputs)


@functools.cache  # every architecture of a space is made of the same few
def block_cost(tokens: int, dim: int, attention_dim: int, hidden_dim: int) -> Cost:
    """One pre-norm block: two LayerNorms, qkv and output projections, two MLP layers, both attention products."""
    parts = [
        linear_cost(tokens, dim, 3 * attention_dim),
        linear_cost(tokens, attention_dim, dim),
        linear_cost(tokens, dim, hidden_dim),
        linear_cost(tokens, hidden_dim, dim),
        Cost(4 * dim, 2 * tokens * tokens * attention_dim),
    ]
    return add_costs(parts)


def add_costs(costs: Sequence[Cost]) -> Cost:
    """Parameters and FLOPs of the parts together."""
    return Cost(sum(c.params for c in costs), sum(c.flops for c in costs))


def extreme(costs: Sequence[Cost], pick: Callable[[Iterable[int]], int]) -> Cost:
    """The fewest (`min`) or most (`max`) parameters and FLOPs that occur, which need not be one architecture's."""
    return Cost(pick(cost.params for cost in costs), pick(cost.flops for cost in costs))
