"""TVT's two readings (Wei et al. 2023, https://arxiv.org/abs/2311.14337), as the authors' published code computes them.

Shape suffixes: B = images, C = channels, H, W = map axes, P = H x W positions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tvt_ray.proxies.passes import norms
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def attention_map(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a feature map has its energy: (B, C, H, W) -> (B, P), each image's map of Euclidean length 1.

    Mean over channels of the squared features (Zagoruyko and Komodakis 2017), after bilinear upsampling to `size`.
    """
    if features.shape[-2:] != size:
        features = F.interpolate(features, size, mode="bilinear", align_corners=False)
    return F.normalize(features.square().mean(1).flatten(1))


@torch.inference_mode()
def attention_similarity(student: Student, probe: Probe) -> float:
    """`attention_similarity`, TVT's t: how alike untrained student and trained teacher look at the same images.

    Higher is better, at most 0.
    Minus the mean squared difference of the two attention maps, of the student's last block and the teacher's last
    stage, both at the larger of the two sizes per axis. One forward pass without the classifier, no labels.
    """
    return -distances(student, probe).mean().item()


@torch.inference_mode()
def distances(student: Student, probe: Probe) -> Tensor:
    """The mean squared difference of each image's two attention maps: (B,), minus whose mean is the reading."""
    return torch.cat([_chunk_distances(student, images, stage) for images, stage in probe.chunks()])


def _chunk_distances(student: Student, images: Tensor, stage: Tensor) -> Tensor:
    """(B, 3, S, S) and (B, C, H, W) -> (B,)."""
    last = student.num_blocks - 1
    features = student.feature_maps(images, (last,), fused=True)[last].float()
    height, width = (max(a, b) for a, b in zip(features.shape[-2:], stage.shape[-2:], strict=True))
    difference = attention_map(stage, (height, width)) - attention_map(features, (height, width))
    return difference.square().mean(1)


@torch.inference_mode()
def l2_norm(student: Student, probe: Probe) -> float:
    """`l2_norm`, TVT's s: the sum of L2 norms of the student's weights; higher is better.

    Over every convolution and Linear, patch embedding and classifier included, biases not. No forward pass.
    """
    return math.fsum(norms(student))
