"""Whether a file computes what the student does, and how well it names images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tvt_ray.data.batches import eval_loader
from tvt_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tvt_ray.data.splits import Split
from tvt_ray.exports.folder import DistilledStudent
from tvt_ray.exports.formats import Computes, normalised
from tvt_ray.quality.classes import ClassMatch

TOLERANCE = 1e-4  # of logits
BATCHES = (1, 7)  # images at a time


def pixels_of(images: Tensor) -> Tensor:
    """(B, 3, S, S), ImageNet-normalised -> the nearest 8-bit levels, (B, S, S, 3) uint8."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (255 * (images * std + mean)).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def some_of(split: Split, image_size: int) -> Tensor:
    """Images for all BATCHES together, evenly spread over a split: (8, S, S, 3) uint8. A small split's repeat."""
    places = np.linspace(0, len(split) - 1, sum(BATCHES)).round().astype(np.int64)
    ((images, _),) = eval_loader(split.take(places), image_size)
    return pixels_of(images)


def drawn(image_size: int) -> Tensor:
    """As many of noise: (8, S, S, 3) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (sum(BATCHES), image_size, image_size, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def largest_difference(file: Computes, student: DistilledStudent, pixels: Tensor) -> float:
    """Of any logit, over BATCHES; not finite where the file's are not, or have another shape."""
    worst = 0.0
    for batch in torch.split(pixels, list(BATCHES)):  # type: ignore[no-untyped-call]
        expected, found = student(normalised(batch)).numpy(), file.logits(file.prepare(batch))
        if found.shape != expected.shape:
            return float("nan")
        worst = max(worst, float(np.abs(found - expected).max()), key=lambda each: (np.isnan(each), each))
    return worst


def accuracy_of(file: Computes, split: Split, image_size: int, match: ClassMatch) -> float:
    """Top-1 on a split, percent. `match`: which of the student's classes the split's are."""
    right = [found == label for found, label in _named(file, split, image_size, match)]
    return 100 * float(np.mean(np.concatenate(right)))


def _named(file: Computes, split: Split, image_size: int, match: ClassMatch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for images, labels in eval_loader(split, image_size):
        yield file.logits(file.prepare(pixels_of(images))).argmax(1), match.relabel(labels.numpy())
