"""From pixels to tokens: one convolution, after others where the stem is convolutional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvt_ray.vits import kernels
from tvt_ray.vits.blocks import NORM_EPS, Conv2d


class ConvShape(NamedTuple):
    """A biased convolution of square kernels."""

    inputs: int  # channels
    outputs: int
    kernel: int  # pixels along one axis, as for stride and padding
    stride: int
    padding: int


class StemConvs(nn.Module):
    """Convolutions, each with LayerNorm over channels and ReLU after it.

    The paper of the convolutional stem (Xiao et al. 2021) has BatchNorm. That would be no norm at all in an untrained
    student, whose statistics are unset. What a training learns would depend on how its batches are shared out to
    workers, and on the last, smaller one. LayerNorm sees one position of one image, and proxies treat it as they do the
    blocks' own. Two more deviations: convolutions have biases, and no block is dropped in exchange for the stem, since
    depth is a choice.
    """

    def __init__(self, shapes: Sequence[ConvShape]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv2d(*shape) for shape in shapes)
        self.norms = nn.ModuleList(nn.LayerNorm(shape.outputs, NORM_EPS) for shape in shapes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, H, W)."""
        features = _laid_out(images)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = F.relu(norm(conv(features).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return features

    def infer(self, images: Tensor) -> Tensor:
        """As forward, in the images' precision, whatever that of the weights."""
        features = _laid_out(images)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            normed = kernels.norm(kernels.conv(features, conv).permute(0, 2, 3, 1), norm)  # type: ignore[arg-type]
            features = normed.relu_().permute(0, 3, 1, 2)
        return features


class Stem(nn.Module):
    """Patches by a bare convolution; `backbone`, where there is one, is what stands before it."""

    def __init__(self, shapes: Sequence[ConvShape]) -> None:
        super().__init__()
        *first, last = shapes
        self.backbone = StemConvs(first) if first else None
        self.proj = Conv2d(*last)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, H x W, C)."""
        features = images if self.backbone is None else self.backbone(images)
        return self.proj(features).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def infer(self, images: Tensor) -> Tensor:
        """As forward, in the images' precision, whatever that of the weights."""
        features = images if self.backbone is None else self.backbone.infer(images)
        return kernels.conv(features, self.proj).flatten(2).transpose(1, 2)


def _laid_out(images: Tensor) -> Tensor:
    """Channels last in memory: maps then go from a norm to a convolution and back without being copied."""
    return images.contiguous(memory_format=torch.channels_last)
