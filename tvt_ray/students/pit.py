"""PiT students (spaces/pit.py says where the space comes from)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from tvt_ray.spaces.costs import IN_CHANNELS
from tvt_ray.spaces.pit import NUM_STAGES, POOL_KERNEL, POOL_PADDING, POOL_STRIDE, PiTArch, PiTSpace
from tvt_ray.students import kernels
from tvt_ray.students.layers import NORM_EPS, Block, BlockShape, Conv2d, Linear, Student, tokens_to_map

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
