"""PiT students (space/pit.py says where the space comes from)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from tvt_ray.models.layers import NORM_EPS, Block, BlockShape, Student, init_weights, tokens_to_map
from tvt_ray.space.base import IN_CHANNELS
from tvt_ray.space.pit import NUM_STAGES, POOL_KERNEL, POOL_PADDING, POOL_STRIDE, PiTArch, PiTSpace

MAX_DROP_PATH = 0.1


class Pool(nn.Module):
    """Halves the map with a depthwise convolution and widens the class token to match."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, POOL_KERNEL, POOL_STRIDE, POOL_PADDING, groups=inputs)
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, tokens: Tensor, map_size: int) -> Tensor:
        """(B, 1 + H x W, C) -> (B, 1 + H/2 x W/2, C')."""
        patches = self.conv(tokens_to_map(tokens, map_size)).flatten(2).mT
        return torch.cat([self.fc(tokens[:, :1]), patches], 1)


class PiT(Student):
    """Three stages; the classifier reads the normalised class token."""

    no_weight_decay = frozenset({"class_token", "positions"})

    def __init__(self, space: PiTSpace, arch: PiTArch, num_classes: int) -> None:
        super().__init__()
        self.map_sizes, widths = space.map_sizes, arch.widths
        self.num_blocks = sum(arch.depth)
        self.patch_embed = nn.Conv2d(IN_CHANNELS, widths[0], space.patch_size, space.stride)
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
        self.head = nn.Linear(widths[-1], num_classes)

    def init_weights(self, generator: torch.Generator) -> None:
        init_weights(self, generator, "default")

    def run(
        self, images: Tensor, blocks: Collection[int], with_logits: bool
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        patches = (self.patch_embed(images) + self.positions).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], 1)
        maps: dict[int, Tensor] = {}
        last, index = self.num_blocks - 1 if with_logits else max(blocks), 0
        for stage, stage_blocks in enumerate(self.stages):
            if stage > 0 and index <= last:
                tokens = self.pools[stage - 1](tokens, self.map_sizes[stage - 1])
            for block in stage_blocks:  # type: ignore[attr-defined]
                if index <= last:
                    tokens = block(tokens)
                if index in blocks:
                    maps[index] = tokens_to_map(tokens, self.map_sizes[stage])
                index += 1
        return (self.head(self.norm(tokens[:, 0])) if with_logits else None), maps
