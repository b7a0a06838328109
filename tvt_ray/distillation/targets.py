"""From a batch of images and labels to what the cross-entropy compares with: mixed, smoothed, weighted by class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tvt_ray.distillation.settings import DistillSettings


class Targets:
    """Mixes images and makes targets as the settings say; with all of it off, targets are the labels.

    Mixing is timm's (mixup, Zhang et al. 2018; CutMix, Yun et al. 2019), one draw for a batch. It pairs the images of a
    worker's share, so with it on, what is learned depends on the number of workers.
    """

    def __init__(self, settings: DistillSettings, labels: NDArray[np.int64], num_classes: int) -> None:
        self.num_classes, self.smoothing = num_classes, settings.smoothing
        self.class_weights = _balanced(labels, num_classes) if settings.class_weights == "balanced" else None
        self.mixup = _timm_mixup(settings, num_classes) if settings.mixup or settings.cutmix else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and labels (B,) -> images, and labels (B,) or weighted class shares (B, classes)."""
        if self.mixup is None and self.smoothing == 0 and self.class_weights is None:
            return images, labels
        shares = self._smooth(labels)
        paired = len(images) // 2 * 2  # timm mixes an even number; the last image of an odd batch stays as it is
        if self.mixup is not None and paired:
            mixed, shares[:paired] = self.mixup(images[:paired].clone(), labels[:paired])
            images = torch.cat([mixed, images[paired:]])
        if self.class_weights is not None:
            shares = shares * self.class_weights.to(shares.device)
        return images, shares

    def _smooth(self, labels: Tensor) -> Tensor:
        hot = F.one_hot(labels, self.num_classes).float()
        return hot * (1 - self.smoothing) + self.smoothing / self.num_classes


def _timm_mixup(settings: DistillSettings, num_classes: int) -> Any:
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        label_smoothing=settings.smoothing,
        num_classes=num_classes,
    )


def _balanced(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """Inverse to how often a class occurs, 1 for an image on average: (classes,); 0 for a class that does not occur."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.divide(len(labels) / max((counts > 0).sum(), 1), counts, out=np.zeros(num_classes), where=counts > 0)
    return torch.from_numpy(weights).float()
