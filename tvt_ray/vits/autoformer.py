"""The AutoFormer space: width per network, heads and MLP ratio per block.

Chen et al. 2021, https://arxiv.org/abs/2107.00651, in the form of the published distillation benchmark (Auto-Prox,
https://arxiv.org/abs/2312.09059): head width is embed_dim / num_heads and positions are absolute. The original
supernet's attention (head width 64, relative positions) is `head_dim: 64`, `relative_position: true`.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from tvt_ray.strict import Strict
from tvt_ray.vits.blocks import NORM_EPS, NUM_RELATIVE_ENTRIES, Block, BlockShape, Linear
from tvt_ray.vits.choices import (
    FloatChoices,
    IntChoices,
    check_choice,
    check_keys,
    cross_indices,
    digest,
    mutate_indices,
)
from tvt_ray.vits.costs import IN_CHANNELS, Cost, add_costs, extreme
from tvt_ray.vits.parts import Part, add_parts, block_part, head_part, stem_part
from tvt_ray.vits.stems import ConvShape, Stem
from tvt_ray.vits.student import Student, tokens_to_map


@dataclass(frozen=True)
class AutoFormerArch:
    """One AutoFormer subnet. Depth is not a field: it is the length of the per-block tuples."""

    embed_dim: int  # channels
    num_heads: tuple[int, ...]  # one entry per block
    mlp_ratio: tuple[float, ...]  # hidden width / embed_dim, one entry per block

    def __post_init__(self) -> None:
        if len(self.num_heads) != len(self.mlp_ratio):
            raise ValueError(
                "num_heads and mlp_ratio have one entry per block each; "
                f"got {len(self.num_heads)} and {len(self.mlp_ratio)}"
            )

    @property
    def depth(self) -> int:
        """Blocks."""
        return len(self.num_heads)


class AutoFormerSpace(Strict):
    """The choices; the defaults are AutoFormer-Ti, 1.06e9 architectures."""

    name: Literal["autoformer"] = "autoformer"
    image_size: PositiveInt = 224  # pixels along each side of what students see
    patch_size: PositiveInt = 16  # pixels along each side of a patch
    embed_dim: IntChoices = (192, 216, 240)  # choices of channels
    depth: IntChoices = (12, 13, 14)  # choices of blocks
    num_heads: IntChoices = (3, 4)  # choices for each block; each divides each embed_dim, unless head_dim is set
    mlp_ratio: FloatChoices = (3.5, 4.0)  # choices for each block: hidden width of its MLP / embed_dim
    head_dim: PositiveInt | None = None  # channels of a head, 64 in the supernet; None: embed_dim / num_heads
    # relative positions in attention, as in the supernet; false: absolute positions alone
    relative_position: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> AutoFormerSpace:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        for dim, heads in itertools.product(self.embed_dim, self.num_heads):
            if self.head_dim is None and dim % heads:
                raise ValueError(
                    f"embed_dim {dim} does not divide into {heads} heads; num_heads divide every embed_dim"
                )
        return self

    @property
    def max_depth(self) -> int:
        """Blocks of the deepest architecture."""
        return max(self.depth)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Choices of width, of depth, then of heads and of ratios for as many blocks as there can be."""
        per_block = (len(self.num_heads),) * self.max_depth + (len(self.mlp_ratio),) * self.max_depth
        return (len(self.embed_dim), len(self.depth), *per_block)

    def size(self) -> int:
        """Architectures in the space."""
        per_block = len(self.num_heads) * len(self.mlp_ratio)
        return int(len(self.embed_dim) * sum(per_block**depth for depth in self.depth))

    def sample(self, rng: random.Random) -> AutoFormerArch:
        """Width and depth uniformly, then every block uniformly (so each depth is as likely as any other)."""
        return self.decode([rng.randrange(count) for count in self.dimensions])

    def mutate(self, arch: AutoFormerArch, rng: random.Random) -> AutoFormerArch:
        """A different architecture near this one; blocks that a deeper child gains are drawn at random."""
        if self.size() < 2:
            raise ValueError("the space holds a single architecture: nothing to mutate to")
        child = arch
        while child == arch:
            child = self.decode(mutate_indices(self._genes(arch, rng), self.dimensions, rng))
        return child

    def crossover(self, first: AutoFormerArch, second: AutoFormerArch, rng: random.Random) -> AutoFormerArch:
        """Every position of the encoding from either parent; blocks that only one has are drawn at random."""
        return self.decode(cross_indices(self._genes(first, rng), self._genes(second, rng), rng))

    def _genes(self, arch: AutoFormerArch, rng: random.Random) -> tuple[int, ...]:
        """The encoding, with unused block positions drawn at random instead of 0."""
        genes = list(self.encode(arch))
        for position, count in ((2, len(self.num_heads)), (2 + self.max_depth, len(self.mlp_ratio))):
            for block in range(arch.depth, self.max_depth):
                genes[position + block] = rng.randrange(count)
        return tuple(genes)

    def enumerate(self) -> Iterator[AutoFormerArch]:
        """All of them, by width, then depth."""
        for dim, depth in itertools.product(self.embed_dim, self.depth):
            for heads in itertools.product(self.num_heads, repeat=depth):
                for ratios in itertools.product(self.mlp_ratio, repeat=depth):
                    yield AutoFormerArch(dim, heads, ratios)

    def encode(self, arch: AutoFormerArch) -> tuple[int, ...]:
        """Indices of embed_dim, depth, then max_depth entries of num_heads and max_depth of mlp_ratio."""
        unused = [0] * (self.max_depth - arch.depth)
        return (
            check_choice("embed_dim", arch.embed_dim, self.embed_dim),
            check_choice("depth", arch.depth, self.depth),
            *[check_choice(f"num_heads[{i}]", h, self.num_heads) for i, h in enumerate(arch.num_heads)],
            *unused,
            *[check_choice(f"mlp_ratio[{i}]", r, self.mlp_ratio) for i, r in enumerate(arch.mlp_ratio)],
            *unused,
        )

    def decode(self, indices: Sequence[int]) -> AutoFormerArch:
        """What `encode` gives, back to the architecture."""
        depth = self.depth[indices[1]]
        heads, ratios = indices[2 : 2 + depth], indices[2 + self.max_depth :][:depth]
        return AutoFormerArch(
            self.embed_dim[indices[0]],
            tuple(self.num_heads[i] for i in heads),
            tuple(self.mlp_ratio[i] for i in ratios),
        )

    def __contains__(self, arch: object) -> bool:
        return (
            isinstance(arch, AutoFormerArch)
            and arch.embed_dim in self.embed_dim
            and arch.depth in self.depth
            and set(arch.num_heads) <= set(self.num_heads)
            and set(arch.mlp_ratio) <= set(self.mlp_ratio)
        )

    def arch_id(self, arch: AutoFormerArch) -> str:
        """Width, depth and a digest of everything."""
        return f"autoformer-e{arch.embed_dim}-d{arch.depth}-{digest(self.to_json(arch))}"

    def shape(self, arch: AutoFormerArch) -> str:
        """Width, depth and how often each MLP ratio occurs; heads where they change a weight's size."""
        ratios = "m" + ".".join(f"{arch.mlp_ratio.count(ratio)}x{ratio:g}" for ratio in sorted(set(arch.mlp_ratio)))
        heads = self.head_dim is not None or self.relative_position
        counts = "".join(f"-h{arch.num_heads.count(n)}x{n}" for n in sorted(set(arch.num_heads)) if heads)
        return f"e{arch.embed_dim}-d{arch.depth}-{ratios}{counts}"

    def describe(self, arch: AutoFormerArch) -> str:
        """Heads and ratios one after the other, block by block."""
        heads = _run_lengths(str(n) for n in arch.num_heads)
        ratios = _run_lengths(f"{ratio:g}" for ratio in arch.mlp_ratio)
        return f"width {arch.embed_dim}, depth {arch.depth}, heads {heads}, ratios {ratios}"

    def columns(self, arch: AutoFormerArch) -> dict[str, str]:
        """Heads and ratios of every block."""
        heads, ratios = " ".join(map(str, arch.num_heads)), " ".join(f"{ratio:g}" for ratio in arch.mlp_ratio)
        return {"width": str(arch.embed_dim), "depth": str(arch.depth), "heads": heads, "ratios": ratios}

    def num_blocks(self, arch: AutoFormerArch) -> int:
        """Its depth."""
        return arch.depth

    def features(self, arch: AutoFormerArch) -> dict[str, float]:
        """Base-2 logarithms of width and depth, and of heads and ratio in the (geometric) mean over the blocks."""
        return {
            "width": math.log2(arch.embed_dim),
            "depth": math.log2(arch.depth),
            "heads": statistics.fmean(map(math.log2, arch.num_heads)),
            "mlp_ratio": statistics.fmean(map(math.log2, arch.mlp_ratio)),
        }

    def to_json(self, arch: AutoFormerArch) -> dict[str, Any]:
        """`embed_dim`, `depth`, and `num_heads` and `mlp_ratio` as lists of that length."""
        return {
            "embed_dim": arch.embed_dim,
            "depth": arch.depth,
            "num_heads": list(arch.num_heads),
            "mlp_ratio": [float(ratio) for ratio in arch.mlp_ratio],
        }

    def from_json(self, obj: Mapping[str, Any]) -> AutoFormerArch:
        """Raises ValueError that says which entry is wrong and what is allowed."""
        check_keys(self.name, obj, ("embed_dim", "depth", "num_heads", "mlp_ratio"))
        for key in ("num_heads", "mlp_ratio"):
            if not isinstance(obj[key], list) or len(obj[key]) != obj["depth"]:
                raise ValueError(f"{key} is a list of length depth ({obj['depth']}); got {obj[key]!r}")
        arch = AutoFormerArch(obj["embed_dim"], tuple(obj["num_heads"]), tuple(obj["mlp_ratio"]))
        return self.decode(self.encode(arch))

    def attention_dim(self, embed_dim: int, num_heads: int) -> int:
        """Width of the queries over all heads."""
        return embed_dim if self.head_dim is None else self.head_dim * num_heads

    def cost(self, arch: AutoFormerArch, num_classes: int) -> Cost:
        """Equal to the built model's parameters; FLOPs count both attention products."""
        return add_parts(self.parts(arch, num_classes))

    def parts(self, arch: AutoFormerArch, num_classes: int) -> tuple[Part, ...]:
        """Patches, blocks, and the head, which reads the mean of the normalised tokens."""
        dim, patches = arch.embed_dim, (self.image_size // self.patch_size) ** 2
        tokens, patch = patches + 1, (IN_CHANNELS, dim, self.patch_size, self.patch_size, 0)
        blocks = [
            self._block(tokens, dim, heads, int(dim * ratio))
            for heads, ratio in zip(arch.num_heads, arch.mlp_ratio, strict=True)
        ]
        stem = stem_part(self.image_size, (patch,), num_prefix=1, num_positions=tokens)
        return stem, *blocks, head_part(tokens, dim, num_classes)

    def _block(self, tokens: int, dim: int, num_heads: int, hidden_dim: int) -> Part:
        """Relative: two tables (rows, columns) for keys and two for values; one more product each over all pairs."""
        attention_dim = self.attention_dim(dim, num_heads)
        block = block_part(tokens, dim, num_heads, attention_dim, hidden_dim)
        if not self.relative_position:
            return block
        tables = 4 * NUM_RELATIVE_ENTRIES * (attention_dim // num_heads)
        cost = add_costs([block.cost, Cost(tables, 2 * tokens * tokens * attention_dim)])
        pairs = 2 * tokens**2 * (attention_dim // num_heads + num_heads)
        return Part("relative_block", block.sizes, cost, block.activations + pairs)

    def smallest(self, num_classes: int) -> Cost:
        """The fewest parameters and the fewest FLOPs that any architecture has."""
        return extreme([self.cost(arch, num_classes) for arch in self._extremes(min)], min)

    def largest(self, num_classes: int) -> Cost:
        """The most of either."""
        return extreme([self.cost(arch, num_classes) for arch in self._extremes(max)], max)

    def largest_arch(self, num_classes: int) -> AutoFormerArch:
        """The architecture of most FLOPs."""
        return max(self._extremes(max), key=lambda arch: self.cost(arch, num_classes).flops)

    def _extremes(self, pick: Any) -> list[AutoFormerArch]:
        """Costs grow with every width, depth and ratio; heads matter where their width is fixed or has tables."""
        depth, ratio = pick(self.depth), pick(self.mlp_ratio)
        return [AutoFormerArch(pick(self.embed_dim), (heads,) * depth, (ratio,) * depth) for heads in self.num_heads]


def _run_lengths(words: Iterable[str]) -> str:
    """3 3 3 4 -> 3x3 4: how often each comes in a row, where that is more than once."""
    runs = ((word, len(list(same))) for word, same in itertools.groupby(words))
    return " ".join(word if count == 1 else f"{count}x{word}" for word, count in runs)


MAX_DROP_PATH = 0.1


class AutoFormer(Student):
    """A plain ViT whose blocks differ; the classifier reads the mean of the normalised patch tokens."""

    no_weight_decay = frozenset({"cls_token", "pos_embed"})
    linear_init = "normal"

    def __init__(self, space: AutoFormerSpace, arch: AutoFormerArch, num_classes: int) -> None:
        super().__init__()
        dim, self.map_size = arch.embed_dim, space.image_size // space.patch_size
        self.num_blocks = arch.depth
        self.patch_embed = Stem([ConvShape(IN_CHANNELS, dim, space.patch_size, space.patch_size, 0)])
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.map_size**2 + 1, dim))
        self.blocks = nn.ModuleList(
            Block(
                BlockShape(dim, heads, space.attention_dim(dim, heads), int(dim * ratio), space.relative_position),
                self.map_size,
                MAX_DROP_PATH * i / max(arch.depth - 1, 1),
            )
            for i, (heads, ratio) in enumerate(zip(arch.num_heads, arch.mlp_ratio, strict=True))
        )
        self.norm = nn.LayerNorm(dim, NORM_EPS)
        self.head = Linear(dim, num_classes)

    def run(
        self, images: Tensor, blocks: Collection[int], with_logits: bool, fused: bool = False
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """As Student.run says."""
        patches = self.patch_embed.infer(images) if fused else self.patch_embed(images)
        cls_token, positions = self.cls_token.to(images.dtype), self.pos_embed.to(images.dtype)
        tokens = torch.cat([cls_token.expand(images.shape[0], -1, -1), patches], 1) + positions
        maps: dict[int, Tensor] = {}
        last = self.num_blocks - 1 if with_logits else max(blocks)
        for i, block in enumerate(self.blocks[: last + 1]):
            tokens = block.infer(tokens) if fused else block(tokens)  # type: ignore[operator]
            if i in blocks:
                maps[i] = tokens_to_map(tokens, self.map_size)
        return (self.head(self.norm(tokens)[:, 1:].mean(1)) if with_logits else None), maps
