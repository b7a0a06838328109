"""Weights of another, trained ViT, as what a student's may be taken from: checked, and under the students' names.

Students have timm's names, so a source is the state of a plain ViT or a PiT of timm's, or of a student.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tvt_ray.errors import UsageError
from tvt_ray.vits.blocks import Block, RelativeBlock

BLOCK = re.compile(r"((?:transformers\.(\d+)\.)?blocks\.(\d+))\.(.+)")
WEIGHTS = tuple(key.removesuffix(".weight") for key in Block.axes if key.endswith(".weight"))  # each has a bias too
SCALES = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}  # LayerScale, and what it scales
HEAD_DIM = 64  # channels of a head where a file does not say: those of nearly all of timm's ViTs
LIKE = "as timm's VisionTransformer and PoolingVisionTransformer and students do"

Stages = tuple[tuple[str, ...], ...]  # how the names of each stage's blocks begin, in order


@dataclass(frozen=True)
class Source:
    """A ViT's weights under the names of students; a classifier is among them only beside the names of its classes."""

    name: str  # as people gave it
    state: Mapping[str, Tensor]  # float32, on the CPU
    num_heads: Mapping[str, int]  # by how the names of a block begin
    class_names: tuple[str, ...] | None = None

    @property
    def stages(self) -> Stages:
        """Its blocks, in one stage of a plain ViT and three of a PiT."""
        return stages_of(self.state)

    def of_classes(self, class_names: Iterable[str]) -> Source:
        """Without the classifier, unless it is of just these classes in this order."""
        if self.class_names == tuple(class_names):
            return self
        return dataclasses.replace(self, state=_without_classifier(self.state), class_names=None)

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits of all that a student may take from it."""
        sha = hashlib.sha256(json.dumps([dict(self.num_heads), self.class_names], sort_keys=True).encode())
        for key, value in sorted(self.state.items()):
            sha.update(json.dumps([key, list(value.shape)]).encode())
            sha.update(value.contiguous().numpy().tobytes())
        return sha.hexdigest()[:12]

    def describe(self) -> str:
        """Where it is from, and its sizes."""
        sizes = " + ".join(str(len(stage)) for stage in self.stages)
        widths = ", ".join(map(str, widths_of(self.state, self.stages)))
        return f"{self.name} ({'vit' if len(self.stages) == 1 else 'pit'}, {sizes} blocks of {widths} channels)"

    def has_tables_of(self, block: str) -> bool:
        """Whether a block's relative positions are vectors of as many channels as its heads are said to have."""
        tables = [value for key, value in self.state.items() if key.startswith(f"{block}.attn.relative_")]
        head_dim = self.state[f"{block}.attn.proj.weight"].shape[1] // self.num_heads[block]
        return bool(tables) and all(table.shape[-1] == head_dim for table in tables)


def parse_source(
    name: str,
    state: Mapping[str, Tensor],
    num_heads: Mapping[str, int] | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Source:
    """The weights of a ViT as a source. Biases that it lacks are zero, and LayerScale becomes a part of what it scales.

    `num_heads`: by how the names of a block begin; None: as many of 64 channels as there are, or one.
    Raises UsageError where these are no weights of a ViT, or of one whose blocks compute what students' cannot.
    """
    state = {_own_name(key): value.detach().float() for key, value in state.items()}
    blocks = [block for stage in stages_of(state) for block in stage]
    if not any(f"{block}.attn.qkv.weight" in state for block in blocks):
        first = next(iter(state), "none")
        raise UsageError(f"{name} is no ViT: it has no blocks.0.attn.qkv.weight, {LIKE}, but {first}")
    state = _scaled(state)
    for block in blocks:
        _check_block(name, state, block)
        for layer in WEIGHTS:
            _add_bias(state, f"{block}.{layer}")
    if "patch_embed.proj.weight" in state:
        _add_bias(state, "patch_embed.proj")
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        where = f"in {len(broken)} of {len(state)} tensors (such as {broken[0]})"
        raise UsageError(f"{name} holds values that are NaN or infinite, {where}; give other weights")
    heads = {block: num_heads[block] if num_heads is not None else _guess_heads(state, block) for block in blocks}
    return Source(name, state if class_names else _without_classifier(state), heads, class_names)


def are_of_a_vit(names: Iterable[str]) -> bool:
    """Whether names are those of a ViT's parameters, as `parse_source` takes them."""
    return any(match[4] == "attn.qkv.weight" for match in map(BLOCK.fullmatch, names) if match)


def stages_of(names: Iterable[str]) -> Stages:
    """The blocks among some parameters, by stage, in order. Empty: there are none."""
    stages: dict[int, dict[int, str]] = {}
    for name in names:
        if match := BLOCK.fullmatch(name):
            block, stage, number, _ = match.groups()
            stages.setdefault(int(stage or 0), {})[int(number)] = block
    return tuple(tuple(blocks[n] for n in sorted(blocks)) for _, blocks in sorted(stages.items()))


def widths_of(state: Mapping[str, Tensor], stages: Stages) -> list[int]:
    """Channels of the tokens in each stage."""
    return [len(state[f"{blocks[0]}.norm1.weight"]) for blocks in stages]


def _without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("head.")}


def _own_name(key: str) -> str:
    """timm has a PiT's pools in the stages after them; the published weights and students have them beside."""
    pool = re.fullmatch(r"transformers\.(\d+)\.pool\.(.+)", key)
    return f"pools.{int(pool[1]) - 1}.{pool[2]}" if pool else key


def _scaled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With LayerScale as a part of the layers before it."""
    scaled = dict(state)
    for match in filter(None, map(BLOCK.fullmatch, state)):
        if layer := SCALES.get(match[4]):
            gamma = scaled.pop(match[0])
            weight, bias = f"{match[1]}.{layer}.weight", f"{match[1]}.{layer}.bias"
            scaled |= {weight: scaled[weight] * gamma[:, None]} if weight in scaled else {}
            scaled |= {bias: scaled[bias] * gamma} if bias in scaled else {}
    return scaled


def _check_block(name: str, state: Mapping[str, Tensor], block: str) -> None:
    """Raises UsageError for a block that has other parameters than a student's has."""
    missing = [f"{block}.{layer}.weight" for layer in WEIGHTS if f"{block}.{layer}.weight" not in state]
    if missing:
        raise UsageError(f"{name} is no plain ViT: it has no {missing[0]}, {LIKE}")
    known = {f"{block}.{key}" for key in RelativeBlock.axes}
    unknown = [key for key in state if key.startswith(f"{block}.") and key not in known]
    if unknown:
        raise UsageError(f"{name} is no plain ViT: it has {unknown[0]}, which blocks of students have no place for")
    _check_shapes(name, {layer: tuple(state[f"{block}.{layer}.weight"].shape) for layer in WEIGHTS}, block)


def _check_shapes(name: str, shapes: Mapping[str, tuple[int, ...]], block: str) -> None:
    """Raises UsageError unless a block's matrices fit one another."""
    width, rows, hidden = shapes["norm1"][0], shapes["attn.qkv"][0], shapes["mlp.fc1"][0]
    sizes = {"c": width, "qkv": rows, "a": rows // 3, "h": hidden}
    for layer in WEIGHTS:
        shape = tuple(sizes[axis] for axis in Block.axes[f"{layer}.weight"])
        if shapes[layer] != shape or rows % 3:
            got = f"{block}.{layer}.weight is {shapes[layer]}"
            raise UsageError(f"{name} is no plain ViT: {got}, and {shape} would fit the rest of its block")


def _add_bias(state: dict[str, Tensor], layer: str) -> None:
    state.setdefault(f"{layer}.bias", torch.zeros(len(state[f"{layer}.weight"])))


def _guess_heads(state: Mapping[str, Tensor], block: str) -> int:
    width = state[f"{block}.attn.proj.weight"].shape[1]
    return 1 if width % HEAD_DIM else width // HEAD_DIM
