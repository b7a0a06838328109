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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tvt_ray.errors import UsageError
from tvt_ray.vits.blocks import Pool, RelativeBlock
from tvt_ray.vits.embedding import Chosen, select_stem, select_tokens
from tvt_ray.vits.even import Indices, even, head_channels, stage_channels, take
from tvt_ray.vits.layers import Attention
from tvt_ray.vits.sources import Source, Stages, stages_of
from tvt_ray.vits.student import Student


@dataclass(frozen=True)
class Selected:
    """What became of a student's parameters, by name."""

    filled: tuple[str, ...]
    left: tuple[str, ...]  # as they were drawn

    def sentence(self) -> str:
        """How many were filled, and the first words of the names of those that were not."""
        text = f"{len(self.filled)} of {len(self.filled) + len(self.left)} tensors"
        parts = dict.fromkeys(_part_of(name) for name in self.left)
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


def check_fits(source: Source, student: Student, name: str = "the student") -> None:
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


def check_stages(source: Source, student: Student, name: str = "the student") -> None:
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
    """Of each block, by how its names begin."""
    modules = student.named_modules()
    return {name.removesuffix(".attn"): module.num_heads for name, module in modules if isinstance(module, Attention)}


def _select(source: Source, own: Mapping[str, Tensor], heads: Mapping[str, int]) -> Chosen:
    stages, theirs = stages_of(own), source.stages
    channels = stage_channels(_widths(source.state, theirs), _widths(own, stages))
    for blocks, given, kept in zip(stages, theirs, channels, strict=True):
        for block, origin in _pairs(blocks, given):
            yield from _select_block(source, origin, own, block, heads[block], kept)
    yield from select_stem(source.state, own, channels[0])
    yield from select_tokens(source.state, own, channels[0])
    yield from _select_pools(source.state, own, channels)
    yield from _select_end(source.state, own, channels[-1])


def _pairs(blocks: Sequence[str], given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each of a student's blocks with the one of the source that it is made from."""
    return zip(blocks, (given[i] for i in even(len(given), len(blocks))), strict=True)


def _widths(state: Mapping[str, Tensor], stages: Stages) -> list[int]:
    return [len(state[f"{blocks[0]}.norm1.weight"]) for blocks in stages]


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


def _part_of(name: str) -> str:
    """What a parameter belongs to, for people: the stem and relative positions by name, the rest by its first word."""
    return "relative positions" if ".relative_" in name else name.split(".")[0]
