"""The PiT family: three stages with pooling between them.

Heo et al. 2021, https://arxiv.org/abs/2103.16302, with the choices of the published distillation benchmark (Auto-Prox,
https://arxiv.org/abs/2312.09059): 1,600 architectures by default.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, PositiveInt, model_validator

from tvt_ray.vits.blocks import Block, Pool, TokenHead
from tvt_ray.vits.choices import Choice, FloatChoices, IntChoices, digest, few_blocks
from tvt_ray.vits.pieces import IN_CHANNELS, Part, conv_output_size
from tvt_ray.vits.space import Space
from tvt_ray.vits.stems import OverlappingPatches
from tvt_ray.vits.student import MAX_DROP_PATH, Student, TimmModel

NUM_STAGES = 3

Triple = tuple[int, int, int]


def _distinct_triples(triples: tuple[Triple, ...]) -> tuple[Triple, ...]:
    if not triples or len(set(triples)) < len(triples) or any(min(t) < 1 for t in triples):
        raise ValueError(f"depth names at least one triple of positive block counts, each once; got {list(triples)}")
    few_blocks(sum(triple) for triple in triples)
    return triples


@dataclass(frozen=True)
class PiTArch:
    """One PiT. The width of a stage is base_dim x its heads."""

    base_dim: Annotated[int, Choice("widths", grows=True, feature="base_dim")]  # channels per head, in every stage
    depth: Annotated[Triple, Choice(per="stage")]  # blocks
    num_heads: Annotated[Triple, Choice("heads", per="stage", options=lambda space, chosen: space.head_triples)]
    mlp_ratio: Annotated[float, Choice("ratio", grows=True, feature="mlp_ratio")]  # hidden width / stage width

    @property
    def widths(self) -> Triple:
        """Channels of each stage."""
        first, second, third = (self.base_dim * heads for heads in self.num_heads)
        return first, second, third


class PiT(Student):
    """Initialised as PyTorch does. Pools stand beside the stages, as in the published weights.

    timm has each in the stage after it, and renames them when it loads.
    """

    linear_init = "default"

    @staticmethod
    def drop_rate(block: int, num_blocks: int) -> float:
        """As in the published code, whose last block stays below the most."""
        return MAX_DROP_PATH * block / num_blocks


class PiTSpace(Space):
    """The choices; `num_heads` lists the values of which a stage takes one, never fewer than the stage before."""

    arch_type, student = PiTArch, PiT

    name: Literal["pit"] = "pit"
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
        triples = itertools.combinations_with_replacement(sorted(self.num_heads), NUM_STAGES)
        return tuple((a, b, c) for a, b, c in triples if b % a == 0 and c % b == 0)

    @cached_property
    def map_sizes(self) -> Triple:
        """Patches along one axis in each stage; 27, 14, 7 at 224 pixels."""
        first = conv_output_size(self.image_size, self.patch_size, self.stride, 0)
        second = Pool.output_size(first)
        return first, second, Pool.output_size(second)

    def parts(self, arch: PiTArch, num_classes: int) -> tuple[Part, ...]:
        """The head reads the class token."""
        widths, sizes = arch.widths, self.map_sizes
        conv = (IN_CHANNELS, widths[0], self.patch_size, self.stride, 0)
        parts = [OverlappingPatches.part(self.image_size, 1, sizes[0] ** 2, *conv)]
        for stage, (size, width, heads) in enumerate(zip(sizes, widths, arch.num_heads, strict=True)):
            if stage:
                parts.append(Pool.part(widths[stage - 1], width, sizes[stage - 1]))
            block = Block.part(size**2 + 1, width, heads, width, int(width * arch.mlp_ratio))
            parts += [block] * arch.depth[stage]
        return *parts, TokenHead.part(1, widths[-1], num_classes)

    def arch_id(self, arch: PiTArch) -> str:
        """All choices, and a digest of them."""
        depth, heads = (".".join(map(str, triple)) for triple in (arch.depth, arch.num_heads))
        return f"pit-b{arch.base_dim}-d{depth}-h{heads}-m{arch.mlp_ratio:g}-{digest(self.to_json(arch))}"

    def columns(self, arch: PiTArch) -> dict[str, str]:
        """Widths, blocks and heads of the three stages, and the ratio."""
        return super().columns(arch) | {"widths": " ".join(map(str, arch.widths))}

    def to_json(self, arch: PiTArch) -> dict[str, Any]:
        """`base_dim`, `depth` and `num_heads` by stage, `mlp_ratio`."""
        ratio = int(arch.mlp_ratio) if float(arch.mlp_ratio).is_integer() else arch.mlp_ratio
        stages = {"depth": [*arch.depth], "num_heads": [*arch.num_heads]}
        return {"base_dim": arch.base_dim, **stages, "mlp_ratio": ratio}

    def timm_model(self, arch: PiTArch) -> TimmModel:
        """A stock PoolingVisionTransformer."""
        args = {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "stride": self.stride,
            "base_dims": [arch.base_dim] * NUM_STAGES,
            "depth": list(arch.depth),
            "heads": list(arch.num_heads),
            "mlp_ratio": arch.mlp_ratio,
        }
        return TimmModel("pit_ti_224", args, arch.widths[-1], f"patch_embed.{OverlappingPatches.first_conv}")
