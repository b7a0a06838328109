"""What architectures cost, by arithmetic: parameters, and multiply-accumulates for one image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

IN_CHANNELS = 3  # every image is RGB; grey scans are repeated over the channels


class Cost(NamedTuple):
    """What an architecture costs, known before it is built."""

    params: int  # weights and biases, classifier included
    flops: int  # multiply-accumulates of matrix products and convolutions for one image, as ViT papers count


def linear_cost(tokens: int, inputs: int, outputs: int) -> Cost:
    """A biased Linear applied to `tokens` positions."""
    return Cost(inputs * outputs + outputs, tokens * inputs * outputs)


def conv_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Positions along one axis after a convolution."""
    return (size + 2 * padding - kernel) // stride + 1


def add_costs(costs: Iterable[Cost]) -> Cost:
    """Parameters and FLOPs of all of them together."""
    return Cost(*map(sum, zip(*costs, strict=True)))
