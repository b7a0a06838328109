"""AutoFormer students (spaces/autoformer.py says where the space comes from)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from tvt_ray.spaces.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.spaces.costs import IN_CHANNELS
from tvt_ray.spaces.vit import ConvShape
from tvt_ray.students.layers import NORM_EPS, Block, BlockShape, Linear, Student, tokens_to_map
from tvt_ray.students.stem import Stem

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
