"""What a proxy is given and what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
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
    precision: torch.dtype = torch.float32  # of the student's pass for `t`; other readings are always float32
    chunk: int = 32  # images at a time in that pass: bounds its memory, and what it gives does not depend on it

    def to(self, device: torch.device | str) -> Probe:
        return dataclasses.replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            teacher_maps=tuple(stage.to(device) for stage in self.teacher_maps),
            teacher_logits=self.teacher_logits.to(device),
        )

    def with_chunk(self, chunk: int) -> Probe:
        return dataclasses.replace(self, chunk=chunk)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, the teacher's last map) of at most `chunk` images at a time, images in `precision`."""
        images = self.images.to(self.precision)
        return zip(torch.split(images, self.chunk), torch.split(self.teacher_maps[-1], self.chunk), strict=True)


Components: TypeAlias = Mapping[str, float]  # raw readings, named as their columns are
Proxy: TypeAlias = Callable[[Student, Probe], Components]


@torch.no_grad()
def build_probe(images: ProbeImages, teacher: Teacher, precision: torch.dtype = torch.float32) -> Probe:
    """Runs the teacher, in evaluation mode and in float32, on its view of the batch."""
    teacher.freeze()
    logits, maps = teacher(images.teacher)
    return Probe(images.student, images.labels, tuple(maps), logits, precision)
