"""What stands before a student's blocks, from a larger ViT: patches, class token and positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.even import Indices, even, take

Chosen = Iterator[tuple[str, Tensor]]  # parameters of a student by name
FIRST_TOKENS = ("cls_token", "dist_token", "reg_token")  # of timm's ViTs, in the order of their positions


def select_stem(state: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: Indices) -> Chosen:
    """Of a stem with the same convolutions; a single one may have another kernel, to which it is resized."""
    shapes = {key: value.shape for key, value in own.items() if key.startswith("patch_embed.")}
    given = {key: value for key, value in state.items() if key.startswith("patch_embed.")}
    if given.keys() != shapes.keys() or not all(_covers(given[key].shape, shapes[key]) for key in shapes):
        return
    kernels = [key for key, shape in shapes.items() if len(shape) == 4]
    if len(kernels) == 1 and given[kernels[0]].shape[1] == shapes[kernels[0]][1]:
        for key, value in given.items():
            yield key, _resized_kernel(take(value, [channels]), shapes[key])
    elif all(given[key].shape[2:] == shapes[key][2:] for key in kernels):
        for key, value in given.items():
            yield key, take(value, [even(*sizes) for sizes in zip(value.shape[:2], shapes[key][:2], strict=True)])


def _covers(have: torch.Size, wanted: torch.Size) -> bool:
    """Whether a tensor has as many axes, and as many channels out and in."""
    return len(have) == len(wanted) and all(a >= b for a, b in zip(have[:2], wanted[:2], strict=True))


def _resized_kernel(weight: Tensor, shape: torch.Size) -> Tensor:
    if weight.shape[2:] == shape[2:]:
        return weight
    ensure_torchvision()
    from timm.layers import resample_patch_embed

    resized: Tensor = resample_patch_embed(weight, list(shape[2:]))
    return resized


def select_tokens(state: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: Indices) -> Chosen:
    """Class token and positions, where both have them and those of the source are of a square map."""
    if "cls_token" in own and "cls_token" in state:
        yield "cls_token", take(state["cls_token"], [None, None, channels])
    if "pos_embed" not in own or "pos_embed" not in state or state["pos_embed"].ndim != own["pos_embed"].ndim:
        return
    if own["pos_embed"].ndim == 4:
        positions = _map_positions(state["pos_embed"], own["pos_embed"].shape[-1], channels)
    else:
        positions = _token_positions(state, own, channels)
    if positions is not None:
        yield "pos_embed", positions


def _map_positions(positions: Tensor, size: int, channels: Indices) -> Tensor | None:
    """Of a PiT: (1, C, H, H) -> (1, C', size, size)."""
    if positions.shape[2] != positions.shape[3]:
        return None
    grid = take(positions, [None, channels]).flatten(2).transpose(1, 2)
    return _resized_map(grid, size).transpose(1, 2).reshape(1, len(channels), size, size)


def _token_positions(state: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: Indices) -> Tensor | None:
    """Of a plain ViT: (1, T, C) -> (1, T', C'). The class token's stays as drawn where the source has no such token."""
    found = _split_positions(state)
    if found is None:
        return None
    first, grid = (take(part, [None, None, channels]) for part in found)
    wanted, has_token = own["pos_embed"], "cls_token" in own
    grid = _resized_map(grid, math.isqrt(wanted.shape[1] - int(has_token)))
    if not has_token:
        return grid
    return torch.cat([first if "cls_token" in state else wanted[:, :1], grid], 1)


def _split_positions(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """The class token's, zeros where it has none, and those of a square map; None where there is no such map."""
    positions = state["pos_embed"]
    num_first = sum(state[key].shape[1] for key in FIRST_TOKENS if key in state)
    for prefix in (num_first, 0):
        count = positions.shape[1] - prefix
        if count > 0 and math.isqrt(count) ** 2 == count:
            first = positions[:, :1] if prefix else torch.zeros_like(positions[:, :1])
            return first, positions[:, prefix:]
    return None


def _resized_map(grid: Tensor, size: int) -> Tensor:
    """Positions (1, H x H, C) of a square map for one of `size` x `size`."""
    if grid.shape[1] == size**2:
        return grid
    ensure_torchvision()
    from timm.layers import resample_abs_pos_embed

    resized: Tensor = resample_abs_pos_embed(grid, [size, size], num_prefix_tokens=0)
    return resized
