"""ViT students (spaces/vit.py says where the space comes from)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from tvt_ray.spaces.vit import ViTArch, ViTSpace
from tvt_ray.students.layers import NORM_EPS, Block, BlockShape, Linear, Student, tokens_to_map
from tvt_ray.students.stem import Stem

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
        self.patch_embed = Stem(arch.stem_convs)
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
