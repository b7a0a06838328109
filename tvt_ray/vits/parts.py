"""What a student computes, part by part: the same few parts make up a whole space, so each has to be timed once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from tvt_ray.vits.costs import Cost, add_costs, block_cost, conv_output_size, linear_cost


class Part(NamedTuple):
    """A piece of a student that is computed on its own: a block, what comes before the blocks, between, or after.

    Parts of equal kind and sizes take equally long. `latency/modules.py` builds them from these.
    """

    kind: str
    sizes: tuple[int, ...]  # in the order of the arguments of the function that made it
    cost: Cost
    activations: int  # numbers that its operations read and write for one image, weights aside


@functools.cache  # as costs are: every architecture of a space is made of the same few
def block_part(tokens: int, dim: int, num_heads: int, attention_dim: int, hidden_dim: int) -> Part:
    """A pre-norm block: `dim` channels, `attention_dim` over all heads, `hidden_dim` in its MLP."""
    widths = 14 * dim + 8 * attention_dim + 4 * hidden_dim  # two norms, four Linears, GELU, attention, two sums
    return Part(
        "block",
        (tokens, dim, num_heads, attention_dim, hidden_dim),
        block_cost(tokens, dim, attention_dim, hidden_dim),
        tokens * widths + 2 * num_heads * tokens**2,
    )


@functools.cache
def stem_part(image_size: int, convs: tuple[tuple[int, ...], ...], num_prefix: int, num_positions: int) -> Part:
    """From pixels to tokens: convolutions with LayerNorm and ReLU between them, class tokens, positions.

    Each of `convs`: input and output channels, kernel, stride, padding. `num_prefix`: class tokens. `num_positions`:
    vectors that are added to tokens.
    """
    size, width, costs, activations = image_size, convs[-1][1], list[Cost](), 0
    for inputs, outputs, kernel, stride, padding in convs:
        before, size = size, conv_output_size(size, kernel, stride, padding)
        costs.append(linear_cost(size**2, inputs * kernel**2, outputs))
        activations += before**2 * inputs + size**2 * outputs
    norms = [Cost(2 * conv[1], 0) for conv in convs[:-1]]
    embedding = Cost((num_prefix + num_positions) * width, 0)
    return Part(
        "patches" if len(convs) == 1 else "conv_stem",
        (image_size, num_prefix, num_positions, *(number for conv in convs for number in conv)),
        add_costs([*costs, *norms, embedding]),
        activations + 5 * (size**2 + num_prefix) * width,
    )


@functools.cache
def head_part(num_normed: int, width: int, num_classes: int) -> Part:
    """From tokens to logits: the last norm, on so many tokens, their mean, and the classifier."""
    cost = add_costs([Cost(2 * width, 0), linear_cost(1, width, num_classes)])
    return Part("head", (num_normed, width, num_classes), cost, 3 * num_normed * width + num_classes)


def add_parts(parts: Sequence[Part]) -> Cost:
    """What they cost together."""
    return add_costs([part.cost for part in parts])
