"""What a proxy is given and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from tvt_ray.data.probe import ProbeImages
from tvt_ray.models.layers import Student
from tvt_ray.models.teacher import Teacher


@dataclass(frozen=True)
class Probe:
    """The fixed batch and what the trained teacher makes of it, computed once per run."""

    images: Tensor  # (B, 3, S, S) as students see them, ImageNet-normalised
    labels: Tensor  # (B,) int64
    teacher_maps: tuple[Tensor, ...]  # stage maps (B, C, H, W), coarsest last
    teacher_logits: Tensor  # (B, classes)

    def to(self, device: torch.device | str) -> Probe:
        maps = tuple(stage.to(device) for stage in self.teacher_maps)
        return Probe(self.images.to(device), self.labels.to(device), maps, self.teacher_logits.to(device))


Components: TypeAlias = Mapping[str, float]  # raw readings, named as their columns are
Proxy: TypeAlias = Callable[[Student, Probe], Components]


@torch.no_grad()
def build_probe(images: ProbeImages, teacher: Teacher) -> Probe:
    """Runs the teacher, in evaluation mode, on its view of the batch."""
    teacher.freeze()
    logits, maps = teacher(images.teacher)
    return Probe(images.student, images.labels, tuple(maps), logits)
