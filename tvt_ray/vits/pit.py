"""The PiT space: three stages with pooling between them.

Heo et al. 2021, https://arxiv.org/abs/2103.16302, with the choices of the published distillation benchmark (Auto-Prox,
https://arxiv.org/abs/2312.09059): 1,600 architectures by default.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, PositiveInt, model_validator
from torch import Tensor, nn

from tvt_ray.strict import Strict
from tvt_ray.vits import kernels
from tvt_ray.vits.blocks import NORM_EPS, Block, BlockShape, Conv2d, Linear
from tvt_ray.vits.choices import (
    FloatChoices,
    IntChoices,
    check_choice,
    check_keys,
    cross_indices,
    digest,
    mutate_indices,
)
from tvt_ray.vits.costs import IN_CHANNELS, Cost, add_costs, conv_output_size, extreme, linear_cost
from tvt_ray.vits.parts import Part, add_parts, block_part, head_part, stem_part
from tvt_ray.vits.student import Student, tokens_to_map

NUM_STAGES = 3
POOL_KERNEL, POOL_STRIDE, POOL_PADDING = 3, 2, 1

Triple = tuple[int, int, int]


def _distinct_triples(triples: tuple[Triple, ...]) -> tuple[Triple, ...]:
    if not triples or len(set(triples)) < len(triples) or any(min(t) < 1 for t in triples):
        raise ValueError(f"depth names at least one triple of positive block counts, each once; got {list(triples)}")
    return triples


@dataclass(frozen=True)
class PiTArch:
    """One PiT. The width of a stage is base_dim x its heads."""

    base_dim: int  # channels per head, in every stage
    depth: Triple  # blocks per stage
    num_heads: Triple  # per stage
    mlp_ratio: float  # hidden width / stage width, in every block

    @property
    def widths(self) -> Triple:
        """Channels of each stage."""
        first, second, third = (self.base_dim * heads for heads in self.num_heads)
        return first, second, third


class PiTSpace(Strict):
    """The choices; `num_heads` lists the values of which a stage takes one, never fewer than the stage before."""

    name: Literal["pit"] = "pit"
    image_size: PositiveInt = 224  # pixels along each side of what students see
    patch_size: PositiveInt = 16  # pixels along each side of a patch
    stride: PositiveInt = 8  # pixels from one patch to the next
    base_dim: IntChoices = (16, 24, 32, 40)  # choices of channels per head: a stage is base_dim x its heads wide
    mlp_ratio: FloatChoices = (2, 4, 6, 8)  # choices, one for all blocks: hidden width of an MLP / width of its stage
    num_heads: IntChoices = (2, 4, 8)  # values of which each stage takes one; it never falls, and each divides the next
    depth: Annotated[tuple[Triple, ...], AfterValidator(_distinct_triples)] = (  # choices of three numbers of blocks
        (1, 6, 6), (1, 8, 4), (2, 4, 6), (2, 6, 4), (2, 6, 6),
        (2, 8, 2), (2, 8, 4), (3, 4, 6), (3, 6, 4), (3, 8, 2),
    )  # fmt: skip

    @model_validator(mode="after")
    def _consistent(self) -> PiTSpace:
        if self.patch_size > self.image_size:
            raise ValueError(f"patch_size {self.patch_size} is larger than image_size {self.image_size}")
        return self

    @cached_property
    def head_triples(self) -> tuple[Triple, ...]:
        """Non-decreasing, and each divides the next: pooling multiplies channels by a whole number."""
        heads = sorted(self.num_heads)
        triples = itertools.combinations_with_replacement(heads, NUM_STAGES)
        return tuple((a, b, c) for a, b, c in triples if b % a == 0 and c % b == 0)

    @property
    def map_sizes(self) -> Triple:
        """Patches along one axis in each stage; 27, 14, 7 at 224 pixels."""
        first = conv_output_size(self.image_size, self.patch_size, self.stride, 0)
        second = conv_output_size(first, POOL_KERNEL, POOL_STRIDE, POOL_PADDING)
        return first, second, conv_output_size(second, POOL_KERNEL, POOL_STRIDE, POOL_PADDING)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Choices of base_dim, depth, heads and ratio."""
        return len(self.base_dim), len(self.depth), len(self.head_triples), len(self.mlp_ratio)

    def size(self) -> int:
        """Architectures in the space."""
        base_dims, depths, heads, ratios = self.dimensions
        return base_dims * depths * heads * ratios

    def sample(self, rng: random.Random) -> PiTArch:
        """Every choice uniformly."""
        return self.decode([rng.randrange(count) for count in self.dimensions])

    def mutate(self, arch: PiTArch, rng: random.Random) -> PiTArch:
        """A different architecture near this one."""
        if self.size() < 2:
            raise ValueError("the space holds a single architecture: nothing to mutate to")
        return self.decode(mutate_indices(self.encode(arch), self.dimensions, rng))

    def crossover(self, first: PiTArch, second: PiTArch, rng: random.Random) -> PiTArch:
        """Every choice from either parent."""
        return self.decode(cross_indices(self.encode(first), self.encode(second), rng))

    def enumerate(self) -> Iterator[PiTArch]:
        """All of them, in the order of the choice lists."""
        for indices in itertools.product(*map(range, self.dimensions)):
            yield self.decode(indices)

    def encode(self, arch: PiTArch) -> tuple[int, ...]:
        """Indices of base_dim, the depth triple, the head triple and mlp_ratio."""
        return (
            check_choice("base_dim", arch.base_dim, self.base_dim),
            check_choice("depth", arch.depth, self.depth),
            check_choice("num_heads", arch.num_heads, self.head_triples),
            check_choice("mlp_ratio", arch.mlp_ratio, self.mlp_ratio),
        )

    def decode(self, indices: Sequence[int]) -> PiTArch:
        """What `encode` gives, back to the architecture."""
        base_dim, depth, heads, ratio = indices
        return PiTArch(self.base_dim[base_dim], self.depth[depth], self.head_triples[heads], self.mlp_ratio[ratio])

    def __contains__(self, arch: object) -> bool:
        return (
            isinstance(arch, PiTArch)
            and arch.base_dim in self.base_dim
            and arch.depth in self.depth
            and arch.num_heads in self.head_triples
            and arch.mlp_ratio in self.mlp_ratio
        )

    def arch_id(self, arch: PiTArch) -> str:
        """All choices, and a digest of them."""
        depth, heads = (".".join(map(str, triple)) for triple in (arch.depth, arch.num_heads))
        return f"pit-b{arch.base_dim}-d{depth}-h{heads}-m{arch.mlp_ratio:g}-{digest(self.to_json(arch))}"

    def shape(self, arch: PiTArch) -> str:
        """Every choice changes a weight's size."""
        return self.arch_id(arch)

    def describe(self, arch: PiTArch) -> str:
        """Widths, depth and heads of the three stages, and the ratio."""
        return ", ".join(f"{name} {value}" for name, value in self.columns(arch).items())

    def columns(self, arch: PiTArch) -> dict[str, str]:
        """Of the three stages, but for the ratio."""
        widths, depth, heads = (" ".join(map(str, triple)) for triple in (arch.widths, arch.depth, arch.num_heads))
        return {"widths": widths, "depth": depth, "heads": heads, "ratio": f"{arch.mlp_ratio:g}"}

    def num_blocks(self, arch: PiTArch) -> int:
        """Over the three stages."""
        return sum(arch.depth)

    def features(self, arch: PiTArch) -> dict[str, float]:
        """Base-2 logarithms of base_dim, of depth and heads in each stage, and of the ratio."""
        by_stage = {"depth": arch.depth, "heads": arch.num_heads}
        stages = {f"{name}_{i}": math.log2(n) for name, triple in by_stage.items() for i, n in enumerate(triple, 1)}
        return {"base_dim": math.log2(arch.base_dim), **stages, "mlp_ratio": math.log2(arch.mlp_ratio)}

    def to_json(self, arch: PiTArch) -> dict[str, Any]:
        """`base_dim`, `depth` and `num_heads` by stage, `mlp_ratio`."""
        ratio = int(arch.mlp_ratio) if float(arch.mlp_ratio).is_integer() else arch.mlp_ratio
        return {
            "base_dim": arch.base_dim,
            "depth": list(arch.depth),
            "num_heads": list(arch.num_heads),
            "mlp_ratio": ratio,
        }

    def from_json(self, obj: Mapping[str, Any]) -> PiTArch:
        """Raises ValueError that says which entry is wrong and what is allowed."""
        check_keys(self.name, obj, ("base_dim", "depth", "num_heads", "mlp_ratio"))
        for key in ("depth", "num_heads"):
            if not isinstance(obj[key], list) or len(obj[key]) != NUM_STAGES:
                raise ValueError(f"{key} is a list of {NUM_STAGES} numbers, one per stage; got {obj[key]!r}")
        arch = PiTArch(obj["base_dim"], tuple(obj["depth"]), tuple(obj["num_heads"]), obj["mlp_ratio"])
        return self.decode(self.encode(arch))

    def cost(self, arch: PiTArch, num_classes: int) -> Cost:
        """Equal to the built model's parameters; FLOPs count both attention products."""
        return add_parts(self.parts(arch, num_classes))

    def parts(self, arch: PiTArch, num_classes: int) -> tuple[Part, ...]:
        """Patches, the blocks of each stage with pooling between them, and the head, which reads the class token."""
        widths, sizes = arch.widths, self.map_sizes
        patch = (IN_CHANNELS, widths[0], self.patch_size, self.stride, 0)
        parts = [stem_part(self.image_size, (patch,), num_prefix=1, num_positions=sizes[0] ** 2)]
        for stage, (size, width, heads) in enumerate(zip(sizes, widths, arch.num_heads, strict=True)):
            if stage:
                parts.append(_pool_part(widths[stage - 1], width, sizes[stage - 1]))
            block = block_part(size**2 + 1, width, heads, width, int(width * arch.mlp_ratio))
            parts += [block] * arch.depth[stage]
        return *parts, head_part(1, widths[-1], num_classes)

    def smallest(self, num_classes: int) -> Cost:
        """The fewest parameters and the fewest FLOPs that any architecture has."""
        return extreme([self.cost(arch, num_classes) for arch in self._extremes(min)], min)

    def largest(self, num_classes: int) -> Cost:
        """The most of either."""
        return extreme([self.cost(arch, num_classes) for arch in self._extremes(max)], max)

    def largest_arch(self, num_classes: int) -> PiTArch:
        """The architecture of most FLOPs."""
        return max(self._extremes(max), key=lambda arch: self.cost(arch, num_classes).flops)

    def _extremes(self, pick: Any) -> list[PiTArch]:
        """Costs grow with base_dim and mlp_ratio; which depth and heads are extreme is tried out."""
        base_dim, ratio = pick(self.base_dim), pick(self.mlp_ratio)
        pairs = itertools.product(self.depth, self.head_triples)
        return [PiTArch(base_dim, depth, heads, ratio) for depth, heads in pairs]


@functools.cache
def _pool_part(inputs: int, outputs: int, map_size: int) -> Part:
    """A depthwise convolution on the map, which is `map_size` wide before it, and a Linear on the class token."""
    halved = conv_output_size(map_size, POOL_KERNEL, POOL_STRIDE, POOL_PADDING)
    depthwise = Cost(outputs * POOL_KERNEL**2 + outputs, halved**2 * outputs * POOL_KERNEL**2)
    cost = add_costs([depthwise, linear_cost(1, inputs, outputs)])
    return Part("pool", (inputs, outputs, map_size), cost, 3 * map_size**2 * inputs + 3 * halved**2 * outputs)


MAX_DROP_PATH = 0.1


class Pool(nn.Module):
    """Halves the map with a depthwise convolution and widens the class token to match."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, POOL_KERNEL, POOL_STRIDE, POOL_PADDING, groups=inputs)
        self.fc = Linear(inputs, outputs)

    def forward(self, tokens: Tensor, map_size: int) -> Tensor:
        """(B, 1 + H x W, C) -> (B, 1 + H/2 x W/2, C')."""
        patches = self.conv(tokens_to_map(tokens, map_size)).flatten(2).transpose(1, 2)
        return torch.cat([self.fc(tokens[:, :1]), patches], 1)

    def infer(self, tokens: Tensor, map_size: int) -> Tensor:
        """As forward, in the tokens' precision, whatever that of the weights."""
        patches = kernels.conv(tokens_to_map(tokens, map_size), self.conv).flatten(2).transpose(1, 2)
        return torch.cat([kernels.linear(tokens[:, :1], self.fc), patches], 1)


class PatchConv(nn.Module):
    """Overlapping patches, as a map."""

    def __init__(self, space: PiTSpace, outputs: int) -> None:
        super().__init__()
        self.conv = Conv2d(IN_CHANNELS, outputs, space.patch_size, space.stride)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, H, W)."""
        return self.conv(images)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Blocks of one width; a module of its own for the sake of their names."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class PiT(Student):
    """Three stages; the classifier reads the normalised class token.

    Pools stand beside the stages, as in the published weights. timm has each in the stage after it, and renames them
    when it loads.
    """

    no_weight_decay = frozenset({"cls_token", "pos_embed"})
    linear_init = "default"

    def __init__(self, space: PiTSpace, arch: PiTArch, num_classes: int) -> None:
        super().__init__()
        self.map_sizes, widths = space.map_sizes, arch.widths
        self.num_blocks = sum(arch.depth)
        self.patch_embed = PatchConv(space, widths[0])
        self.cls_token = nn.Parameter(torch.empty(1, 1, widths[0]))
        self.pos_embed = nn.Parameter(torch.empty(1, widths[0], self.map_sizes[0], self.map_sizes[0]))
        self.transformers = nn.ModuleList()
        for stage in range(NUM_STAGES):
            first, width = sum(arch.depth[:stage]), widths[stage]
            shape = BlockShape(width, arch.num_heads[stage], width, int(width * arch.mlp_ratio))
            self.transformers.append(
                Stage(
                    Block(shape, self.map_sizes[stage], MAX_DROP_PATH * (first + i) / self.num_blocks)
                    for i in range(arch.depth[stage])
                )
            )
        self.pools = nn.ModuleList(Pool(widths[i], widths[i + 1]) for i in range(NUM_STAGES - 1))
        self.norm = nn.LayerNorm(widths[-1], NORM_EPS)
        self.head = Linear(widths[-1], num_classes)

    def run(
        self, images: Tensor, blocks: Collection[int], with_logits: bool, fused: bool = False
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """As Student.run says."""
        patches = kernels.conv(images, self.patch_embed.conv) if fused else self.patch_embed(images)
        cls_token, positions = self.cls_token.to(images.dtype), self.pos_embed.to(images.dtype)
        embedded = (patches + positions).flatten(2).transpose(1, 2)
        tokens = torch.cat([cls_token.expand(images.shape[0], -1, -1), embedded], 1)
        maps: dict[int, Tensor] = {}
        last, index = self.num_blocks - 1 if with_logits else max(blocks), 0
        for stage, transformer in enumerate(self.transformers):
            if stage > 0 and index <= last:
                pool = self.pools[stage - 1]
                tokens = (pool.infer if fused else pool)(tokens, self.map_sizes[stage - 1])  # type: ignore[operator]
            for block in transformer.blocks:  # type: ignore[union-attr]
                if index <= last:
                    tokens = block.infer(tokens) if fused else block(tokens)
                if index in blocks:
                    maps[index] = tokens_to_map(tokens, self.map_sizes[stage])
                index += 1
        return (self.head(self.norm(tokens[:, 0])) if with_logits else None), maps
