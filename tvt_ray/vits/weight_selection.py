"""Weight selection: a student begins with weights of a larger ViT, evenly chosen.

Xu et al., Initializing Models with Larger Ones, ICLR 2024, https://arxiv.org/abs/2311.18823. From each tensor of the
larger model they take evenly spaced entries along every axis, so that tensors which share channels keep the same ones.
Where this departs from the paper and its code:

- Blocks are evenly chosen too, by the same rule; of ViTs the paper takes the first ones.
- Heads are chosen, then channels inside each, the same for queries, keys and values. The paper's code chooses among the
  rows of all three at once, which mixes them where the sizes do not divide. Where the student has more heads, or wider
  ones, channels are chosen without regard to heads, alike for all three.
- The paper's models see equal images. Here positions are resized to the student's map and patches to its patch size, as
  timm does with both.
- After a PiT's pool each channel comes from one before it. So a wider stage's channels are those that the chosen ones
  become.
- The classifier is taken where the classes are the same. The paper draws it anew.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.blocks import Pool, RelativeBlock
from tvt_ray.vits.layers import Attention
from tvt_ray.vits.student import Student
from tvt_ray.vits.weight_source import Source, stages_of, widths_of

Indices = Sequence[int]
Chosen = Iterator[tuple[str, Tensor]]  # parameters of a student by name
FIRST_TOKENS = ("cls_token", "dist_token", "reg_token")  # of timm's ViTs, in the order of their positions


@dataclass(frozen=True)
class Selected:
    """What became of a student's parameters, by name."""

    filled: tuple[str, ...]
    left: tuple[str, ...]  # as they were drawn

    def sentence(self) -> str:
        """How many were filled, and the first words of the names of those that were not."""
        text = f"{len(self.filled)} of {len(self.filled) + len(self.left)} tensors"
        parts = dict.fromkeys("relative positions" if ".relative_" in key else key.split(".")[0] for key in self.left)
        return f"{text} ({', '.join(parts)} stay as drawn)" if parts else text


@torch.no_grad()
def select_weights(source: Source, student: Student, name: str = "the student") -> Selected:
    """Fills what of the student it can from `source`; the rest stays. Raises UsageError as `check_fits` does."""
    check_fits(source, student, name)
    own = student.state_dict()
    chosen = dict(_select(source, own, heads_of(student)))
    for key, value in chosen.items():
        own[key].copy_(value)
    return Selected(tuple(chosen), tuple(key for key in own if key not in chosen))


def check_fits(source: Source, student: Student, name: str) -> None:
    """Raises UsageError where the student has stages or sizes that are not in `source`; needs shapes alone."""
    check_stages(source, student, name)
    own = student.state_dict()
    stages = stages_of(own)
    for stage, (blocks, given) in enumerate(zip(stages, source.stages, strict=True)):
        where = f" in stage {stage + 1}" if len(stages) > 1 else ""
        _check_size(source, name, f"blocks{where}", len(given), len(blocks))
        for block, origin in _pairs(blocks, given):
            have, wanted = _block_sizes(source.state, origin), _block_sizes(own, block)
            for what, size in wanted.items():
                _check_size(source, name, f"{what}{where}", have[what], size)


def check_stages(source: Source, student: Student, name: str) -> None:
    """Raises UsageError where one is a PiT and the other a plain ViT, whatever their sizes."""
    stages, theirs = stages_of(student.state_dict()), source.stages
    if len(stages) != len(theirs):
        raise UsageError(
            f"{source.name} has {len(theirs)} stages of blocks and {name} has {len(stages)}: a student of the space "
            "pit takes weights of a PiT, one of another space those of a plain ViT"
        )


def _check_size(source: Source, name: str, what: str, have: int, wanted: int) -> None:
    if have < wanted:
        raise UsageError(
            f"{source.describe()} is too small for {name}: it has {have} {what}, {name} has {wanted}; "
            "weights are taken from a ViT that has at least as many"
        )


def _block_sizes(state: Mapping[str, Tensor], block: str) -> dict[str, int]:
    qkv, hidden = state[f"{block}.attn.qkv.weight"], state[f"{block}.mlp.fc1.weight"]
    return {"channels": qkv.shape[1], "channels over all heads": len(qkv) // 3, "hidden channels": len(hidden)}


def heads_of(student: Student) -> dict[str, int]:
    """Heads of each block, by how its names begin."""
    modules = student.named_modules()
    return {name.removesuffix(".attn"): module.num_heads for name, module in modules if isinstance(module, Attention)}


def _select(source: Source, own: Mapping[str, Tensor], heads: Mapping[str, int]) -> Chosen:
    stages, theirs = stages_of(own), source.stages
    channels = stage_channels(widths_of(source.state, theirs), widths_of(own, stages))
    for blocks, given, kept in zip(stages, theirs, channels, strict=True):
        for block, origin in _pairs(blocks, given):
            yield from _select_block(source, origin, own, block, heads[block], kept)
    yield from _select_stem(source.state, own, channels[0])
    yield from _select_tokens(source.state, own, channels[0])
    yield from _select_pools(source.state, own, channels)
    yield from _select_end(source.state, own, channels[-1])


def _pairs(blocks: Sequence[str], given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each of a student's blocks with the one of the source that it is made from."""
    return zip(blocks, (given[i] for i in even(len(given), len(blocks))), strict=True)


def _select_block(
    source: Source, origin: str, own: Mapping[str, Tensor], block: str, num_heads: int, channels: Indices
) -> Chosen:
    have, wanted = _block_sizes(source.state, origin), _block_sizes(own, block)
    count = have["channels over all heads"]
    over_heads, inside = head_channels(count, source.num_heads[origin], wanted["channels over all heads"], num_heads)
    axes: dict[str, Indices | None] = {
        "c": channels,
        "a": over_heads,
        "qkv": [part * count + channel for part in range(3) for channel in over_heads],
        "h": even(have["hidden channels"], wanted["hidden channels"]),
        "d": inside if source.has_tables_of(origin) else None,
    }
    for key, names in RelativeBlock.axes.items():
        value, indices = source.state.get(f"{origin}.{key}"), [axes.get(name) for name in names]
        if f"{block}.{key}" in own and value is not None and indices[-1] is not None:
            yield f"{block}.{key}", take(value, indices)


def _select_pools(state: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: Sequence[Indices]) -> Chosen:
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        for key, names in Pool.axes.items():
            name, axes = f"pools.{i}.{key}", {"before": before, "after": after}
            weight = f"{name.rpartition('.')[0]}.weight"
            same = weight in own and weight in state and state[weight].shape[2:] == own[weight].shape[2:]
            if same and name in state:
                yield name, take(state[name], [axes[axis] for axis in names])


def _select_end(state: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: Indices) -> Chosen:
    """The last norm, which timm calls by where it stands, and the classifier."""
    for name, other in (("norm", "fc_norm"), ("fc_norm", "norm")):
        found = next((each for each in (name, other) if f"{each}.weight" in state), None)
        if f"{name}.weight" in own and found:
            yield f"{name}.weight", take(state[f"{found}.weight"], [channels])
            if f"{found}.bias" in state:
                yield f"{name}.bias", take(state[f"{found}.bias"], [channels])
    if "head.weight" in state and len(state["head.weight"]) == len(own["head.weight"]):
        yield "head.weight", take(state["head.weight"], [None, channels])
        yield "head.bias", state["head.bias"]


def _select_stem(state: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: Indices) -> Chosen:
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


def _select_tokens(state: Mapping[str, Tensor], own: Mapping[str, Tensor], channels: Indices) -> Chosen:
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
