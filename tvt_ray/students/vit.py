"""ViT students (spaces/vit.py says where the space comes from)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvt_ray.spaces.vit import ConvShape, ViTArch, ViTSpace
from tvt_ray.students import kernels
from tvt_ray.students.layers import NORM_EPS, Block, BlockShape, Conv2d, Linear, Student, tokens_to_map

MAX_DROP_PATH = 0.1


class Stem(nn.Module):
    """From pixels to tokens by convolutions, with LayerNorm over channels and ReLU between them.

    The paper of the convolutional stem (Xiao et al. 2021) has BatchNorm. That would be no norm at all in an untrained
    student, whose statistics are unset. What a training learns would depend on how its batches are shared out to
    workers, and on the last, smaller one. LayerNorm sees one position of one image, and proxies treat it as they do the
    blocks' own. Two more deviations: convolutions have biases, and no block is dropped in exchange for the stem, since
    depth is a choice.
    """

    def __init__(self, shapes: Sequence[ConvShape]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv2d(*shape) for shape in shapes)
        self.norms = nn.ModuleList(nn.LayerNorm(shape.outputs, NORM_EPS) for shape in shapes[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, H x W, C)."""
        *convs, last = self.convs
        features = self._laid_out(images)
        for conv, norm in zip(convs, self.norms, strict=True):
            features = F.relu(norm(conv(features).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return last(features).flatten(2).mT  # type: ignore[no-any-return]

    def infer(self, images: Tensor) -> Tensor:
        """As forward, in the images' precision, whatever that of the weights."""
        *convs, last = self.convs
        features = self._laid_out(images)
        for conv, norm in zip(convs, self.norms, strict=True):
            normed = kernels.norm(kernels.conv(features, conv).permute(0, 2, 3, 1), norm)  # type: ignore[arg-type]
            features = normed.relu_().permute(0, 3, 1, 2)
        return kernels.conv(features, last).flatten(2).mT  # type: ignore[arg-type]

    def _laid_out(self, images: Tensor) -> Tensor:
        """Where norms follow, channels last in memory: maps then go from one to the other without being copied."""
        return images.contiguous(memory_format=torch.channels_last) if len(self.norms) else images


class ViT(Student):
    """A plain ViT of equal blocks; with the stem `patch` it computes what timm's VisionTransformer does.

    pool `token`: the classifier reads the normalised class token. `mean`: the normalised mean of the patch tokens, and
    there is no class token (timm's global_pool "avg" without class_token). Weights are drawn as every student's are:
    timm draws a class token from normal(0, 1e-6), this has 0.02.
    """

    linear_init = "normal"

    def __init__(self, space: ViTSpace, arch: ViTArch, num_classes: int) -> None:
        super().__init__()
        dim, self.map_size, prefix = arch.embed_dim, space.map_size(arch), arch.num_prefix_tokens
        self.num_blocks = arch.depth
        self.patch_embed = Stem(arch.stem_convs)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim)) if prefix else None
        self.positions = nn.Parameter(torch.empty(1, prefix + self.map_size**2, dim))
        self.no_weight_decay = frozenset({"positions", "class_token"} if prefix else {"positions"})
        shape = BlockShape(dim, arch.num_heads, dim, int(dim * arch.mlp_ratio))
        self.blocks = nn.ModuleList(
            Block(shape, self.map_size, MAX_DROP_PATH * i / max(arch.depth - 1, 1)) for i in range(arch.depth)
        )
        self.norm = nn.LayerNorm(dim, NORM_EPS)
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
        return (self.head(self.norm(self._pooled(tokens))) if with_logits else None), maps

    def _embed(self, patches: Tensor) -> Tensor:
        """Puts the class token first and adds positions: (B, H x W, C) -> (B, T, C), contiguous."""
        if self.class_token is not None:
            class_token = self.class_token.to(patches.dtype).expand(len(patches), -1, -1)
            patches = torch.cat([class_token, patches], 1)
        return (patches + self.positions.to(patches.dtype)).contiguous()

    def _pooled(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, C)."""
        return tokens.mean(1) if self.class_token is None else tokens[:, 0]
