"""The module of every architecture: a stem, blocks with pools between them, a head; and how timm calls it.

Shape suffixes: B = images, T = tokens, C = channels, H, W = map axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tvt_ray.vits.blocks import Block, tokens_to_map
from tvt_ray.vits.draws import Draws
from tvt_ray.vits.pieces import Part
from tvt_ray.vits.stems import Embedding, embed
from tvt_ray.vits.trunks import Trunk

MAX_DROP_PATH = 0.1
STOCK_VIT = "vit_tiny_patch16_224"  # models of timm's that students are to it
OWN_VIT = "tvt_vit"  # which `import tvt_ray.exports.timm_vit` registers


class Student(nn.Module):
    """What every student offers: logits, and the maps of the blocks that are asked for.

    Made of parts, in order. Its parameters have timm's names: `blocks` of a plain ViT; `transformers` and `pools`, in
    which stages of blocks and what is between them stand, of one with pools. A family's own student says how Linears
    are initialised (`linear_init`) and what else its paper does otherwise.
    """

    linear_init: ClassVar[Literal["normal", "default"]] = "normal"

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        stem, *body, head = parts
        first, last = Embedding(stem.piece, *stem.sizes), head.piece(*head.sizes)
        pieces = [part.piece(*part.sizes) for part in body]
        runs = itertools.groupby(pieces, lambda piece: isinstance(piece, Block))
        stages = [nn.ModuleList(run) for are_blocks, run in runs if are_blocks]
        self.patch_embed, self.cls_token, self.pos_embed = first.patch_embed, first.cls_token, first.pos_embed
        if len(stages) <= 1:
            self.blocks = stages[0] if stages else nn.ModuleList()
        else:
            self.transformers = nn.ModuleList(nn.ModuleDict({"blocks": stage}) for stage in stages)
            self.pools = nn.ModuleList(piece for piece in pieces if not isinstance(piece, Block))
        self._norm_name, self._pooled = last.norm_name, last.pooled
        self.add_module(last.norm_name, last.norm)
        self.head = last.head
        for i, (_, block) in enumerate(self._blocks()):
            block.drop_path = self.drop_rate(i, self.num_blocks)

    @property
    def num_blocks(self) -> int:
        """Transformer blocks over all stages."""
        return len(self._blocks())

    @property
    def attention_blocks(self) -> list[Any]:
        """Those blocks, in order."""
        return [block for _, block in self._blocks()]

    @property
    def trunk(self) -> Trunk | None:
        """The stages of a ConvNet in its stem, where it has some."""
        backbone = getattr(self.patch_embed, "backbone", None)
        return backbone if isinstance(backbone, Trunk) else None

    @property
    def block_widths(self) -> list[int]:
        """Channels of each block's map."""
        return [block.mlp.fc2.out_features for block in self.attention_blocks]

    @property
    def no_weight_decay(self) -> frozenset[str]:
        """Names of parameters that are neither weights, nor biases, nor of norms."""
        return frozenset(name for name, _ in self.named_parameters(recurse=False))

    @staticmethod
    def drop_rate(block: int, num_blocks: int) -> float:
        """Share of images for which a block's branches are dropped in training: none at first, most at the end."""
        return MAX_DROP_PATH * block / max(num_blocks - 1, 1)

    def init_weights(self, draws: Draws) -> None:
        """Gives every parameter its value, in the order in which the modules were made.

        linear_init "normal": weights normal(0, 0.02), biases 0. The published code draws them with timm's
        `trunc_normal_`, which cuts at -2 and 2: a hundred standard deviations away, so no value is ever cut and a
        normal draw is the same. "default": PyTorch's own, uniform within 1/sqrt(fan_in), as for every convolution.
        Class token, positions and relative positions: normal(0, 0.02). Norms: 1 and 0.

        Weights drawn from a normal distribution are views of `draws`, which nothing may write to.
        """
        with torch.no_grad():
            for module in self.modules():
                _init_module(module, draws, self.linear_init)

    def run(
        self, images: Tensor, blocks: Collection[int], with_features: bool, fused: bool = False
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Computes what is asked for and no more: without features, nothing after the last block in `blocks`.

        `fused`: pieces run by `infer`, in the images' precision. Gives what the classifier reads, and the maps.
        """
        patches = self.patch_embed.infer(images) if fused else self.patch_embed(images)
        tokens, maps = self.embed(patches, images.dtype), dict[int, Tensor]()
        last = self.num_blocks - 1 if with_features else max(blocks)
        for number, (pool, block) in zip(range(last + 1), self._blocks(), strict=False):
            for piece in (pool, block) if pool else (block,):
                tokens = piece.infer(tokens) if fused else piece(tokens)
            if number in blocks:
                maps[number] = tokens_to_map(tokens, block.map_size)
        return (self._pooled(tokens, self.get_submodule(self._norm_name)) if with_features else None), maps

    def embed(self, patches: Tensor, dtype: torch.dtype) -> Tensor:
        """What the first block reads, where images are of `dtype`: (B, H x W, C) -> (B, T, C)."""
        return embed(patches, self.cls_token, self.pos_embed, dtype)

    def _blocks(self) -> list[tuple[Any, Any]]:
        """In order, each with the pool before it, if there is one."""
        stages: Any = getattr(self, "transformers", None) or [{"blocks": self.blocks}]
        pairs = zip([None, *getattr(self, "pools", ())], stages, strict=True)
        return [(None if i else pool, block) for pool, stage in pairs for i, block in enumerate(stage["blocks"])]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), ImageNet-normalised -> logits (B, classes)."""
        features, _ = self.run(images, (), with_features=True)
        return self.head(features)  # type: ignore[no-any-return]

    def feature_maps(self, images: Tensor, blocks: Collection[int], fused: bool = False) -> dict[int, Tensor]:
        """Outputs (B, C, H, W) of the numbered blocks (0 is the first), without the class token, before any norm.

        `fused`: as fast as this machine can, for inference alone: no gradient, no hooks on what is inside a block.
        """
        return self.run(images, blocks, with_features=False, fused=fused)[1]

    def logits_and_maps(self, images: Tensor, blocks: Collection[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits (B, classes), and the numbered blocks' maps, in one pass."""
        logits, maps, _ = self.logits_maps_features(images, blocks)
        return logits, maps

    def logits_maps_features(self, images: Tensor, blocks: Collection[int]) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """The same, with what the classifier reads of each image, (B, C)."""
        features, maps = self.run(images, blocks, with_features=True)
        assert features is not None
        return self.head(features), maps, features


def _init_module(module: nn.Module, draws: Draws, linear_init: str) -> None:
    if isinstance(module, nn.LayerNorm):
        module.weight.fill_(1)
        module.bias.zero_()
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.reset_parameters()
    elif isinstance(module, nn.Linear) and linear_init == "normal":
        module.weight.data = draws.normal(module.weight.shape)
        module.bias.zero_()
    elif isinstance(module, nn.Linear | nn.Conv2d):
        bound = 1 / math.sqrt(module.weight[0].numel())
        module.weight.data = draws.uniform(module.weight.shape, bound)
        if module.bias is not None:
            module.bias.data = draws.uniform(module.bias.shape, bound)
    else:
        for parameter in module.parameters(recurse=False):
            parameter.data = draws.normal(parameter.shape)


@dataclass(frozen=True)
class TimmModel:
    """A registered model of timm's, and all arguments in which a student differs from it; timm itself is not needed."""

    architecture: str
    model_args: Mapping[str, Any]  # plain values, as JSON holds them
    num_features: int  # channels that the classifier reads
    first_conv: str  # its module's name; timm changes it for images of other than three channels

    @property
    def is_stock(self) -> bool:
        """Whether timm has it without this package."""
        return self.architecture != OWN_VIT
