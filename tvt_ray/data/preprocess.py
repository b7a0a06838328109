"""The two steps between an image tensor and a network: normalisation and size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """(B, 3, H, W) in 0 to 1 -> the same with `mean` and `std` per channel taken out."""
    mean_t, std_t = (torch.tensor(v, dtype=images.dtype, device=images.device)[:, None, None] for v in (mean, std))
    return (images - mean_t) / std_t


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear (B, 3, H, W) -> (B, 3, size, size), align_corners=False, low-pass filtered where it shrinks."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    shrinks = min(height, width) > size
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
