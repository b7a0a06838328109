"""The ViT space: plain ViTs of equal blocks, with width, depth, heads, MLP ratio, patches, stem and pooling to choose.

Dosovitskiy et al. 2021,
https://arxiv.org/abs/2010.11929, in the form of timm's VisionTransformer, which a student with the stem `patch` equals.
The stem `conv` is that of Xiao et al. 2021, https://arxiv.org/abs/2106.14881 (stems.py says what differs).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import AfterValidator, PositiveInt, model_validator
from torch import Tensor, nn

from tvt_ray.strict import Strict
from tvt_ray.vits import stems
from tvt_ray.vits.blocks import NORM_EPS, Block, BlockShape, Linear
from tvt_ray.vits.choices import (
    FloatChoices,
    IntChoices,
    check_choice,
    check_keys,
    cross_indices,
    distinct,
    mutate_indices,
)
from tvt_ray.vits.costs import IN_CHANNELS, Cost, extreme
from tvt_ray.vits.parts import Part, add_parts, block_part, head_part, stem_part
from tvt_ray.vits.stems import ConvShape
from tvt_ray.vits.student import Student, tokens_to_map

STEM_KERNEL, STEM_STRIDE, STEM_PADDING = 3, 2, 1
LEAST_STEM_CHANNELS = 16  # of a convolution in the stem: fewer are too few to normalise over

Stem: TypeAlias = Literal["patch", "conv"]
Pool: TypeAlias = Literal["token", "mean"]


@dataclass(frozen=True)
class ViTArch:
    """One ViT, in the order in which the space encodes it; all blocks have the same heads and ratio."""

    embed_dim: int  # channels
    depth: int  # blocks
    num_heads: int  # embed_dim / a head width of the space
    mlp_ratio: float  # hidden width / embed_dim
    patch_size: int  # pixels from one token to the next
    stem: Stem  # patch: one convolution; conv: several
    pool: Pool  # what the classifier reads: a class token, or the mean of the patches, which then have none beside them

    @property
    def num_prefix_tokens(self) -> int:
        """Class tokens: 1 or 0."""
        return int(self.pool == "token")

    @property
    def stem_convs(self) -> tuple[ConvShape, ...]:
        """Convolutions from pixels to tokens; the last is bare, those before it have a norm and ReLU.

        conv: 3 x 3 convolutions halve the map as often as the patch size can be halved, and double the channels up to
        embed_dim. The last takes what is left of the patch: 1 x 1 where the patch size is a power of two. Where it is
        none, as 12, the last is the one that widens to embed_dim, and those before it end at half of that.
        """
        if self.stem == "patch":
            return (ConvShape(IN_CHANNELS, self.embed_dim, self.patch_size, self.patch_size, 0),)
        halvings = (self.patch_size & -self.patch_size).bit_length() - 1
        rest = self.patch_size >> halvings
        widest = self.embed_dim >> int(rest > 1)
        widths = [max(widest >> later, LEAST_STEM_CHANNELS) for later in reversed(range(halvings))]
        halving = (STEM_KERNEL, STEM_STRIDE, STEM_PADDING)
        convs = [ConvShape(*pair, *halving) for pair in itertools.pairwise([IN_CHANNELS, *widths])]
        return (*convs, ConvShape(widths[-1], self.embed_dim, rest, rest, 0))


class ViTSpace(Strict):
    """The choices; every combination of them is an architecture, 1,792 by default.

    Heads are chosen by their width, which means the same at every embed_dim, and of which any divides each of those.
    """

    name: Literal["vit"] = "vit"
    image_size: PositiveInt = 224  # pixels along each side of what students see; a multiple of every patch size
    embed_dim: IntChoices = (96, 192, 288, 384)  # choices of channels
    depth: IntChoices = (2, 4, 6, 8, 10, 12, 14)  # choices of blocks
    head_dim: IntChoices = (32, 48)  # choices of channels per head; each divides each embed_dim
    mlp_ratio: FloatChoices = (1, 2, 3, 4)  # choices of hidden width of an MLP / embed_dim
    patch_size: IntChoices = (16, 32)  # choices of pixels from one token to the next
    # choices of patch (one convolution) and conv (several)
    stem: Annotated[tuple[Stem, ...], AfterValidator(distinct)] = ("patch", "conv")
    # choices of token (a class token) and mean (of the patch tokens, without a class token)
    pool: Annotated[tuple[Pool, ...], AfterValidator(distinct)] = ("token", "mean")

    @model_validator(mode="after")
    def _consistent(self) -> ViTSpace:
        for patch in self.patch_size:
            if self.image_size % patch:
                raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {patch}")
            if "conv" in self.stem and patch % STEM_STRIDE:
                raise ValueError(f"the stem 'conv' halves the image, so every patch_size is even; got {patch}")
        for dim, head in itertools.product(self.embed_dim, self.head_dim):
            if dim % head:
                raise ValueError(f"embed_dim {dim} is not a multiple of head_dim {head}; each head_dim divides each")
        return self

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Choices of embed_dim, depth, head_dim, mlp_ratio, patch_size, stem and pool."""
        choices = self.embed_dim, self.depth, self.head_dim, self.mlp_ratio, self.patch_size, self.stem, self.pool
        return tuple(map(len, choices))

    def size(self) -> int:
        """Architectures in the space."""
        return math.prod(self.dimensions)

    def sample(self, rng: random.Random) -> ViTArch:
        """Every choice uniformly."""
        return self.decode([rng.randrange(count) for count in self.dimensions])

    def mutate(self, arch: ViTArch, rng: random.Random) -> ViTArch:
        """A different architecture near this one."""
        if self.size() < 2:
            raise ValueError("the space holds a single architecture: nothing to mutate to")
        return self.decode(mutate_indices(self.encode(arch), self.dimensions, rng))

    def crossover(self, first: ViTArch, second: ViTArch, rng: random.Random) -> ViTArch:
        """Every choice from either parent; of the heads, their width."""
        return self.decode(cross_indices(self.encode(first), self.encode(second), rng))

    def enumerate(self) -> Iterator[ViTArch]:
        """All of them, in the order of the choice lists."""
        for indices in itertools.product(*map(range, self.dimensions)):
            yield self.decode(indices)

    def encode(self, arch: ViTArch) -> tuple[int, ...]:
        """Indices in the order of `dimensions`."""
        return (
            check_choice("embed_dim", arch.embed_dim, self.embed_dim),
            check_choice("depth", arch.depth, self.depth),
            check_choice("num_heads", arch.num_heads, [arch.embed_dim // width for width in self.head_dim]),
            check_choice("mlp_ratio", arch.mlp_ratio, self.mlp_ratio),
            check_choice("patch_size", arch.patch_size, self.patch_size),
            check_choice("stem", arch.stem, self.stem),
            check_choice("pool", arch.pool, self.pool),
        )

    def decode(self, indices: Sequence[int]) -> ViTArch:
        """What `encode` gives, back to the architecture."""
        dim, depth, head, ratio, patch, stem, pool = indices
        return ViTArch(
            embed_dim=self.embed_dim[dim],
            depth=self.depth[depth],
            num_heads=self.embed_dim[dim] // self.head_dim[head],
            mlp_ratio=self.mlp_ratio[ratio],
            patch_size=self.patch_size[patch],
            stem=self.stem[stem],
            pool=self.pool[pool],
        )

    def __contains__(self, arch: object) -> bool:
        if not isinstance(arch, ViTArch):
            return False
        try:
            return self.decode(self.encode(arch)) == arch
        except ValueError:
            return False

    def arch_id(self, arch: ViTArch) -> str:
        """All choices."""
        return f"vit-{self._key(arch, f'-h{arch.num_heads}')}"

    def shape(self, arch: ViTArch) -> str:
        """All choices but the heads, which change no weight's size."""
        return self._key(arch, "")

    def _key(self, arch: ViTArch, heads: str) -> str:
        ratio = str(arch.mlp_ratio).removesuffix(".0")
        return f"e{arch.embed_dim}-d{arch.depth}{heads}-m{ratio}-p{arch.patch_size}-{arch.stem}-{arch.pool}"

    def describe(self, arch: ViTArch) -> str:
        """Every choice by its name."""
        return ", ".join(f"{name} {value}" for name, value in self.columns(arch).items())

    def columns(self, arch: ViTArch) -> dict[str, str]:
        """A column for every choice."""
        names = ("width", "depth", "heads", "ratio", "patches", "stem", "pool")
        values = asdict(arch) | {"mlp_ratio": f"{arch.mlp_ratio:g}"}
        return dict(zip(names, map(str, values.values()), strict=True))

    def num_blocks(self, arch: ViTArch) -> int:
        """Its depth."""
        return arch.depth

    def features(self, arch: ViTArch) -> dict[str, float]:
        """What a predictor of accuracy may read: sizes as log2, so that a doubling is 1, and 0 or 1 for the rest."""
        sizes = {
            "width": arch.embed_dim,
            "depth": arch.depth,
            "head_width": arch.embed_dim / arch.num_heads,
            "mlp_ratio": arch.mlp_ratio,
            "tokens": self.map_size(arch) ** 2,
        }
        flags = {"has_conv_stem": arch.stem == "conv", "has_mean_pool": arch.pool == "mean"}
        return {**{name: math.log2(size) for name, size in sizes.items()}, **{k: float(v) for k, v in flags.items()}}

    def to_json(self, arch: ViTArch) -> dict[str, Any]:
        """The fields of the architecture, under their names."""
        return asdict(arch)

    def from_json(self, obj: Mapping[str, Any]) -> ViTArch:
        """Raises ValueError that says which entry is wrong and what is allowed."""
        keys = ("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "stem", "pool")
        check_keys(self.name, obj, keys)
        return self.decode(self.encode(ViTArch(**{key: obj[key] for key in keys})))

    def map_size(self, arch: ViTArch) -> int:
        """Patches along one axis."""
        return self.image_size // arch.patch_size

    def cost(self, arch: ViTArch, num_classes: int) -> Cost:
        """Equal to the built model's parameters; FLOPs count both attention products."""
        return add_parts(self.parts(arch, num_classes))

    def parts(self, arch: ViTArch, num_classes: int) -> tuple[Part, ...]:
        """Stem, blocks, and the head, which reads the class token or the mean of the tokens."""
        dim, prefix = arch.embed_dim, arch.num_prefix_tokens
        tokens = self.map_size(arch) ** 2 + prefix
        stem = stem_part(self.image_size, arch.stem_convs, prefix, num_positions=tokens)
        blocks = [block_part(tokens, dim, arch.num_heads, dim, int(dim * arch.mlp_ratio))] * arch.depth
        return stem, *blocks, head_part(1 if prefix else tokens, dim, num_classes)

    def smallest(self, num_classes: int) -> Cost:
        """The fewest parameters and the fewest FLOPs that any architecture has."""
        return extreme([self.cost(arch, num_classes) for arch in self._extremes(min)], min)

    def largest(self, num_classes: int) -> Cost:
        """The most of either."""
        return extreme([self.cost(arch, num_classes) for arch in self._extremes(max)], max)

    def largest_arch(self, num_classes: int) -> ViTArch:
        """The architecture of most FLOPs."""
        return max(self._extremes(max), key=lambda arch: self.cost(arch, num_classes).flops)

    def _extremes(self, pick: Any) -> list[ViTArch]:
        """Costs grow with width, depth and ratio, and heads cost nothing; patches, stem and pooling are tried out."""
        dim, depth, ratio = pick(self.embed_dim), pick(self.depth), pick(self.mlp_ratio)
        rest = itertools.product(self.patch_size, self.stem, self.pool)
        return [ViTArch(dim, depth, dim // self.head_dim[0], ratio, *each) for each in rest]


MAX_DROP_PATH = 0.1


class ViT(Student):
    """A plain ViT of equal blocks; with the stem `patch` it is timm's VisionTransformer, under the same names.

    pool `token`: the classifier reads the normalised class token. `mean`: the normalised mean of the patch tokens, and
    there is no class token. That is timm's global_pool "avg" without class_token; its norm is called fc_norm.
    Weights are drawn as every student's are: timm draws a class token from normal(0, 1e-6), this has 0.02.
    """

    linear_init = "normal"

    def __init__(self, space: ViTSpace, arch: ViTArch, num_classes: int) -> None:
        super().__init__()
        dim, self.map_size, prefix = arch.embed_dim, space.map_size(arch), arch.num_prefix_tokens
        self.num_blocks = arch.depth
        self.patch_embed = stems.Stem(arch.stem_convs)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if prefix else None
        self.pos_embed = nn.Parameter(torch.empty(1, prefix + self.map_size**2, dim))
        self.no_weight_decay = frozenset({"pos_embed", "cls_token"} if prefix else {"pos_embed"})
        shape = BlockShape(dim, arch.num_heads, dim, int(dim * arch.mlp_ratio))
        self.blocks = nn.ModuleList(
            Block(shape, self.map_size, MAX_DROP_PATH * i / max(arch.depth - 1, 1)) for i in range(arch.depth)
        )
        self.add_module(self._norm_name, nn.LayerNorm(dim, NORM_EPS))
        self.head = Linear(dim, num_classes)

    def run(
        self, images: Tensor, blocks: Collection[int], with_logits: bool, fused: bool = False
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """As Student.run says."""
        tokens = self._embed(self.patch_embed.infer(images) if fused else self.patch_embed(images))
        maps: dict[int, Tensor] = {}
        last = self.num_blocks - 1 if with_logits else max(blocks)
        for i, block in enumerate(self.blocks[: last + 1]):
            tokens = block.infer(tokens) if fused else block(tokens)  # type: ignore[operator]
            if i in blocks:
                maps[i] = tokens_to_map(tokens, self.map_size)
        return (self.head(self._pooled(tokens)) if with_logits else None), maps

    def _embed(self, patches: Tensor) -> Tensor:
        """Puts the class token first and adds positions: (B, H x W, C) -> (B, T, C), contiguous."""
        if self.cls_token is not None:
            cls_token = self.cls_token.to(patches.dtype).expand(patches.shape[0], -1, -1)
            patches = torch.cat([cls_token, patches], 1)
        return (patches + self.pos_embed.to(patches.dtype)).contiguous()

    @property
    def _norm_name(self) -> str:
        return "fc_norm" if self.cls_token is None else "norm"

    def _pooled(self, tokens: Tensor) -> Tensor:
        """What the classifier reads: (B, T, C) -> (B, C)."""
        norm = self.get_submodule(self._norm_name)
        return norm(tokens.mean(1) if self.cls_token is None else tokens[:, 0])  # type: ignore[no-any-return]
