"""The AutoFormer family: width per network, heads and MLP ratio per block.

Chen et al. 2021, https://arxiv.org/abs/2107.00651, in the form of the published distillation benchmark (Auto-Prox,
https://arxiv.org/abs/2312.09059): head width is embed_dim / num_heads and positions are absolute. The original
supernet's attention (head width 64, relative positions) is `head_dim: 64`, `relative_position: true`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import PositiveInt, model_validator

from tvt_ray.vits.blocks import Block, PatchesHead, RelativeBlock
from tvt_ray.vits.choices import BlockChoices, Choice, FloatChoices, IntChoices, digest
from tvt_ray.vits.pieces import Part
from tvt_ray.vits.space import Space
from tvt_ray.vits.stems import Patches
from tvt_ray.vits.student import OWN_VIT, STOCK_VIT, TimmModel


@dataclass(frozen=True)
class AutoFormerArch:
    """One AutoFormer subnet. Its depth is the length of the per-block tuples."""

    embed_dim: Annotated[int, Choice("width", grows=True)]  # channels
    depth: Annotated[int, Choice("depth", grows=True)] = field(init=False)  # blocks
    num_heads: Annotated[tuple[int, ...], Choice("heads", per="block")]
    mlp_ratio: Annotated[  # hidden width / embed_dim
        tuple[float, ...], Choice("ratios", per="block", grows=True, feature="mlp_ratio")
    ]

    def __post_init__(self) -> None:
        if len(self.num_heads) != len(self.mlp_ratio):
            raise ValueError(
                "num_heads and mlp_ratio have one entry per block each; "
                f"got {len(self.num_heads)} and {len(self.mlp_ratio)}"
            )
        object.__setattr__(self, "depth", len(self.num_heads))


class AutoFormerSpace(Space):
    """The choices; the defaults are AutoFormer-Ti, 1.06e9 architectures."""

    arch_type = AutoFormerArch

    name: Literal["autoformer"] = "autoformer"
    patch_size: PositiveInt = 16  # pixels along each side of a patch
    embed_dim: IntChoices = (192, 216, 240)  # choices of channels
    depth: BlockChoices = (12, 13, 14)  # choices of blocks
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

    def parts(self, arch: AutoFormerArch, num_classes: int) -> tuple[Part, ...]:
        """The head reads the mean of the normalised patch tokens."""
        dim, tokens = arch.embed_dim, (self.image_size // self.patch_size) ** 2 + 1
        block = RelativeBlock if self.relative_position else Block
        blocks = [
            block.part(tokens, dim, heads, self.head_dim * heads if self.head_dim else dim, int(dim * ratio))
            for heads, ratio in zip(arch.num_heads, arch.mlp_ratio, strict=True)
        ]
        stem = Patches.of_patches(self.image_size, dim, self.patch_size, num_prefix=1)
        return stem, *blocks, PatchesHead.part(tokens, dim, num_classes)

    def arch_id(self, arch: AutoFormerArch) -> str:
        """Width, depth and a digest of everything."""
        return f"autoformer-e{arch.embed_dim}-d{arch.depth}-{digest(self.to_json(arch))}"

    def shape(self, arch: AutoFormerArch) -> str:
        """Width, depth and how often each MLP ratio occurs; heads where they change a weight's size."""
        ratios = "m" + ".".join(f"{arch.mlp_ratio.count(ratio)}x{ratio:g}" for ratio in sorted(set(arch.mlp_ratio)))
        heads = self.head_dim is not None or self.relative_position
        counts = "".join(f"-h{arch.num_heads.count(n)}x{n}" for n in sorted(set(arch.num_heads)) if heads)
        return f"e{arch.embed_dim}-d{arch.depth}-{ratios}{counts}"

    def to_json(self, arch: AutoFormerArch) -> dict[str, Any]:
        """`embed_dim`, `depth`, and `num_heads` and `mlp_ratio` as lists of that length."""
        return super().to_json(arch) | {"mlp_ratio": [float(ratio) for ratio in arch.mlp_ratio]}

    def timm_model(self, arch: AutoFormerArch) -> TimmModel:
        """A stock VisionTransformer where all blocks are alike and attention is timm's."""
        equal = len(set(arch.num_heads)) == len(set(arch.mlp_ratio)) == 1
        args: dict[str, Any] = {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "embed_dim": arch.embed_dim,
            "depth": arch.depth,
            "num_heads": arch.num_heads[0] if equal else list(arch.num_heads),
            "mlp_ratio": arch.mlp_ratio[0] if equal else list(arch.mlp_ratio),
            "global_pool": "avg",
            "class_token": True,
            "fc_norm": False,
        }
        own = {"head_dim": self.head_dim, "relative_position": self.relative_position}
        args |= {key: value for key, value in own.items() if value}
        stock = equal and not any(own.values())
        return TimmModel(STOCK_VIT if stock else OWN_VIT, args, arch.embed_dim, f"patch_embed.{Patches.first_conv}")
