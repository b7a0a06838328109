"""What every student offers.

Shape suffixes: B = images, T = tokens, C = channels, H, W = map axes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from tvt_ray.vits.draws import Draws


class Student(nn.Module):
    """What every student offers: logits, and the maps of the blocks that are asked for.

    Subclasses set `num_blocks`, `head` (the classifier), `no_weight_decay` (names of parameters that are neither biases
    nor norms) and `linear_init` (how Linears are initialised), and implement `run`.
    """

    num_blocks: int
    head: nn.Linear
    no_weight_decay: frozenset[str]
    linear_init: Literal["normal", "default"]

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
        self, images: Tensor, blocks: Collection[int], with_logits: bool, fused: bool = False
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Computes what is asked for and no more: without logits, nothing after the last block in `blocks`.

        `fused`: blocks run by `Block.infer`, in the images' precision.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), ImageNet-normalised -> logits (B, classes)."""
        logits, _ = self.run(images, (), with_logits=True)
        assert logits is not None
        return logits

    def feature_maps(self, images: Tensor, blocks: Collection[int], fused: bool = False) -> dict[int, Tensor]:
        """Outputs (B, C, H, W) of the numbered blocks (0 is the first), without the class token, before any norm.

        `fused`: as fast as this machine can, for inference alone: no gradient, no hooks on what is inside a block.
        """
        return self.run(images, blocks, with_logits=False, fused=fused)[1]

    def logits_and_maps(self, images: Tensor, blocks: Collection[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Both of the above in one pass."""
        logits, maps = self.run(images, blocks, with_logits=True)
        assert logits is not None
        return logits, maps


def tokens_to_map(tokens: Tensor, map_size: int) -> Tensor:
    """(B, T, C) -> (B, C, H, W): the last H x W tokens. A class token stands before them and is dropped."""
    images, _, channels = tokens.shape
    return tokens[:, -(map_size**2) :].transpose(1, 2).reshape(images, channels, map_size, map_size)


def _init_module(module: nn.Module, draws: Draws, linear_init: str) -> None:
    if isinstance(module, nn.LayerNorm):
        module.weight.fill_(1)
        module.bias.zero_()
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
