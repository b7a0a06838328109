"""The ViT family: plain ViTs of equal blocks, with width, depth, heads, MLP ratio, patches, stem and pooling to choose.

Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, in the form of timm's VisionTransformer, which a student with
the stem `patch` equals, under the same names.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import AfterValidator, model_validator
from torch import Tensor

from tvt_ray.vits.blocks import Block, MeanHead, TokenHead
from tvt_ray.vits.choices import Choice, CountChoices, FloatChoices, IntChoices, distinct
from tvt_ray.vits.pieces import Part
from tvt_ray.vits.space import Space
from tvt_ray.vits.stems import STEMS, StemName, stem_of
from tvt_ray.vits.student import OWN_VIT, STOCK_VIT, Student, TimmModel
from tvt_ray.vits.trunks import first_conv_of

PoolName: TypeAlias = Literal["token", "mean"]

HEADS = Choice(
    "heads",
    options=lambda space, chosen: [chosen["embed_dim"] // width for width in space.head_dim],
    feature="head_width",
    reads=lambda space, arch: arch.embed_dim / arch.num_heads,
)
STEM = Choice(flags=lambda space: list(dict.fromkeys([*STEMS, *space.stem]))[1:])
PATCHES = Choice("patches", feature="tokens", reads=lambda space, arch: space.map_size(arch) ** 2)


@dataclass(frozen=True)
class ViTArch:
    """One ViT, in the order in which the space encodes it; all blocks have the same heads and ratio."""

    embed_dim: Annotated[int, Choice("width", "e", grows=True)]  # channels
    depth: Annotated[int, Choice(grows=True)]  # blocks
    num_heads: Annotated[int, HEADS]  # embed_dim / a head width of the space
    mlp_ratio: Annotated[float, Choice("ratio", "m", grows=True, feature="mlp_ratio")]  # hidden width / embed_dim
    patch_size: Annotated[int, PATCHES]  # pixels from one token to the next
    stem: Annotated[StemName, STEM]
    # What the classifier reads: a class token, or the mean of the patches, which then have none beside them.
    pool: Annotated[PoolName, Choice(flags=("mean",))]


class ViT(Student):
    """Tokens are of the precision that the stem computes in, where autocast chooses one.

    Weights are drawn as every student's are: timm draws a class token from normal(0, 1e-6), this has 0.02.
    """

    def embed(self, patches: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, H x W, C) -> (B, T, C)."""
        return super().embed(patches, patches.dtype)


class ViTSpace(Space):
    """The choices; every combination of them is an architecture, 1,792 by default.

    Heads are chosen by their width, which means the same at every embed_dim, and of which any divides each of those.
    """

    arch_type, student = ViTArch, ViT
    later = frozenset({"backbone"})

    name: Literal["vit"] = "vit"
    embed_dim: IntChoices = (96, 192, 288, 384)  # choices of channels
    # choices of blocks; 0 alone: a head on the stages' pooled map, which is a rival to compare with, not to search
    depth: CountChoices = (2, 4, 6, 8, 10, 12, 14)
    head_dim: IntChoices = (32, 48)  # choices of channels per head; each divides each embed_dim
    mlp_ratio: FloatChoices = (1, 2, 3, 4)  # choices of hidden width of an MLP / embed_dim
    patch_size: IntChoices = (16, 32)  # choices of pixels from one token to the next
    # choices of patch (one convolution), conv (several) and stageK (the first K stages of the backbone)
    stem: Annotated[tuple[StemName, ...], AfterValidator(distinct)] = ("patch", "conv")
    backbone: str | None = None  # the ConvNet of timm's that stems of stages are cut from
    # choices of token (a class token) and mean (of the patch tokens, without a class token)
    pool: Annotated[tuple[PoolName, ...], AfterValidator(distinct)] = ("token", "mean")

    @model_validator(mode="after")
    def _consistent(self) -> ViTSpace:
        for patch in self.patch_size:
            if self.image_size % patch:
                raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {patch}")
            for stem in self.stem:
                stem_of(stem, self.backbone).check(patch)
        if self.depth == (0,) and any(stem in STEMS for stem in self.stem):
            raise ValueError("depth 0 is for stems of stages: without blocks, other stems see no more than a patch")
        for dim, head in itertools.product(self.embed_dim, self.head_dim):
            if dim % head:
                raise ValueError(f"embed_dim {dim} is not a multiple of head_dim {head}; each head_dim divides each")
        return self

    def map_size(self, arch: ViTArch) -> int:
        """Patches along one axis."""
        return self.image_size // arch.patch_size

    def parts(self, arch: ViTArch, num_classes: int) -> tuple[Part, ...]:
        """The head reads the class token or the mean of the tokens."""
        dim, has_token = arch.embed_dim, arch.pool == "token"
        tokens = self.map_size(arch) ** 2 + has_token
        stem = stem_of(arch.stem, self.backbone).of_patches(self.image_size, dim, arch.patch_size, int(has_token))
        blocks = [Block.part(tokens, dim, arch.num_heads, dim, int(dim * arch.mlp_ratio))] * arch.depth
        head = TokenHead.part(1, dim, num_classes) if has_token else MeanHead.part(tokens, dim, num_classes)
        return stem, *blocks, head

    def shape(self, arch: ViTArch) -> str:
        """All choices but the heads, which change no weight's size."""
        return "-".join(self._words(arch, without=["num_heads"]))

    def timm_model(self, arch: ViTArch) -> TimmModel:
        """A stock VisionTransformer but for the convolutional stem."""
        args = {
            "img_size": self.image_size,
            "patch_size": arch.patch_size,
            "embed_dim": arch.embed_dim,
            "depth": arch.depth,
            "num_heads": arch.num_heads,
            "mlp_ratio": arch.mlp_ratio,
            "global_pool": {"token": "token", "mean": "avg"}[arch.pool],
            "class_token": arch.pool == "token",
        }
        args |= {} if arch.stem == "patch" else {"stem": arch.stem}
        args |= {} if arch.stem in STEMS else {"backbone": self.backbone}
        architecture, stem = STOCK_VIT if arch.stem == "patch" else OWN_VIT, stem_of(arch.stem, self.backbone)
        first = stem.first_conv if arch.stem in STEMS else f"{stem.first_conv}.{first_conv_of(str(self.backbone))}"
        return TimmModel(architecture, args, arch.embed_dim, f"patch_embed.{first}")
