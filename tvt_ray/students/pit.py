"""PiT students (spaces/pit.py says where the space comes from)."""

from __future__ import annotations

from collections.abc import Collection

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
        patches = self.conv(tokens_to_map(tokens, map_size)).flatten(2).mT
        return torch.cat([self.fc(tokens[:, :1]), patches], 1)

    def infer(self, tokens: Tensor, map_size: int) -> Tensor:
        """As forward, in the tokens' precision, whatever that of the weights."""
        patches = kernels.conv(tokens_to_map(tokens, map_size), self.conv).flatten(2).mT
        return torch.cat([kernels.linear(tokens[:, :1], self.fc), patches], 1)


class PiT(Student):
    """Three stages; the classifier reads the normalised class token."""

    no_weight_decay = frozenset({"class_token", "positions"})
    linear_init = "default"

    def __init__(self, space: PiTSpace, arch: PiTArch, num_classes: int) -> None:
        super().__init__()
        self.map_sizes, widths = space.map_sizes, arch.widths
        self.num_blocks = sum(arch.depth)
        self.patch_embed = Conv2d(IN_CHANNELS, widths[0], space.patch_size, space.stride)
        self.class_token = nn.Parameter(torch.empty(1, 1, widths[0]))
        self.positions = nn.Parameter(torch.empty(1, widths[0], self.map_sizes[0], self.map_sizes[0]))
        self.stages = nn.ModuleList()
        for stage in range(NUM_STAGES):
            first, width = sum(arch.depth[:stage]), widths[stage]
            shape = BlockShape(width, arch.num_heads[stage], width, int(width * arch.mlp_ratio))
            self.stages.append(
                nn.ModuleList(
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
        patches = kernels.conv(images, self.patch_embed) if fused else self.patch_embed(images)
        class_token, positions = self.class_token.to(images.dtype), self.positions.to(images.dtype)
        tokens = torch.cat([class_token.expand(len(images), -1, -1), (patches + positions).flatten(2).mT], 1)
        maps: dict[int, Tensor] = {}
        last, index = self.num_blocks - 1 if with_logits else max(blocks), 0
        for stage, stage_blocks in enumerate(self.stages):
            if stage > 0 and index <= last:
                pool = self.pools[stage - 1]
                tokens = (pool.infer if fused else pool)(tokens, self.map_sizes[stage - 1])  # type: ignore[operator]
            for block in stage_blocks:  # type: ignore[attr-defined]
                if index <= last:
                    tokens = block.infer(tokens) if fused else block(tokens)
                if index in blocks:
                    maps[index] = tokens_to_map(tokens, self.map_sizes[stage])
                index += 1
        return (self.head(self.norm(tokens[:, 0])) if with_logits else None), maps
