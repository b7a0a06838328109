"""Which channels of a larger ViT become those of a student: arithmetic of indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Indices = Sequence[int]


def even(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` indices, evenly spaced, as the paper's code has it; `wanted` is not above `count`."""
    if count % wanted == 0:
        return list(range(0, count, count // wanted))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def head_channels(count: int, heads: int, wanted: int, wanted_heads: int) -> tuple[list[int], list[int] | None]:
    """Which of `count` channels over `heads` become `wanted` over `wanted_heads`, and which inside each head.

    None where heads could not be kept: the student has more of them, or wider ones.
    """
    each, wanted_each = count // heads, wanted // wanted_heads
    if wanted_heads > heads or wanted_each > each:
        return even(count, wanted), None
    inside = even(each, wanted_each)
    return [head * each + channel for head in even(heads, wanted_heads) for channel in inside], inside


def stage_channels(have: Sequence[int], wanted: Sequence[int]) -> list[list[int]]:
    """Which channels of the source each stage of a student takes.

    Where pools multiply channels, a stage takes what the pool makes of those that the stage before it took; where that
    would be too many, evenly chosen ones.
    """
    channels = [even(have[0], wanted[0])]
    for stage in range(1, len(have)):
        times, own = have[stage] // have[stage - 1], wanted[stage] // wanted[stage - 1]
        if own > times:
            channels.append(even(have[stage], wanted[stage]))
        else:
            channels.append([channel * times + i for channel in channels[-1] for i in even(times, own)])
    return channels


def take(value: Tensor, indices: Sequence[Indices | None]) -> Tensor:
    """Entries along each of the first axes; None: all."""
    for axis, chosen in enumerate(indices):
        if chosen is not None:
            value = value.index_select(axis, torch.tensor(chosen))
    return value
