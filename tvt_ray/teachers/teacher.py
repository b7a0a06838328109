"""What every teacher is: a CNN that gives its stage maps beside its logits, at its own size and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD, resize
from tvt_ray.vits.trunks import renormalisation

NUM_STAGES = 3  # stage maps that a teacher gives; of a CNN with more, the last three
State: TypeAlias = dict[str, Tensor]  # parameters and buffers by name


class Backbone(nn.Module):
    """A CNN that gives its stage maps beside its logits: (B, 3, H, W) -> logits (B, classes), maps (B, C, H', W')."""

    @property
    def network(self) -> nn.Module:
        """The module whose state dict weight files hold."""
        return self

    def outputs(self, images: Tensor, with_features: bool) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """As forward, and what the classifier reads, (B, C), where it is asked for."""
        logits, maps = self(images)
        return logits, maps, self.features(images) if with_features else None

    def features(self, images: Tensor) -> Tensor:
        """What the classifier reads: (B, 3, H, W) -> (B, C)."""
        raise NotImplementedError

    def own_names(self, state: State) -> State:
        """A file's state with the names that this network gives its parameters."""
        return state


class Teacher(nn.Module):
    """A CNN that takes ImageNet-normalised images of any size and sees them at its own size and normalisation."""

    def __init__(
        self,
        name: str,
        backbone: Backbone,
        num_classes: int,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.name, self.backbone, self.num_classes, self.image_size = name, backbone, num_classes, image_size
        scale, shift = renormalisation(mean, std)
        self.register_buffer("scale", torch.tensor(scale)[:, None, None], persistent=False)
        self.register_buffer("shift", torch.tensor(shift)[:, None, None], persistent=False)
        self.renormalizes = tuple(mean) != IMAGENET_MEAN or tuple(std) != IMAGENET_STD

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 3, H, W), ImageNet-normalised -> logits (B, classes), three stage maps (B, C, H', W'), coarsest last."""
        logits, maps = self.backbone(self._seen(images))
        return logits, maps

    def outputs(self, images: Tensor, with_features: bool = False) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """As forward, and where it is asked for what the classifier reads, (B, C)."""
        return self.backbone.outputs(self._seen(images), with_features)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), ImageNet-normalised -> what the classifier reads, (B, C)."""
        return self.backbone.features(self._seen(images))

    def _seen(self, images: Tensor) -> Tensor:
        images = resize(images, self.image_size)
        return images * self.scale + self.shift if self.renormalizes else images  # type: ignore[operator]

    def freeze(self) -> Teacher:
        """Evaluation mode (BatchNorm statistics fixed), no gradients."""
        return self.eval().requires_grad_(False)
