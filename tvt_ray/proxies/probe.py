"""The one fixed batch on which every architecture is read, and what the teacher makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import eval_tensor
from tvt_ray.errors import UsageError
from tvt_ray.strict import Seed, Strict
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.training.pace import exact_float32


class ProbeSettings(Strict):
    """The published code uses 128 images; fewer cost proportionally less."""

    num_images: PositiveInt = 32  # training images on which every architecture is read
    seed: Seed = 0  # decides which images those are
    num_inits: PositiveInt = 1  # initialisations of each student, over which its readings are averaged
    # of the pass for `attention_similarity` alone; bfloat16 takes half the time where the hardware has it
    precision: Literal["float32", "bfloat16"] = "float32"


def select_balanced(labels: NDArray[np.int64], num_images: int, seed: int) -> NDArray[np.int64]:
    """Indices of `num_images` images, of each class equally many or one more; seeded, and in random order.

    A class that runs out leaves its share to the others. Raises UsageError when there are fewer images than asked for.
    """
    if num_images > len(labels):
        raise UsageError(f"probe.num_images is {num_images}, but there are only {len(labels)} training images")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    # An image's turn is its rank within its class; earlier turns come first, so classes take turns.
    classes, shuffled = rng.permutation(labels.max() + 1), labels[order]
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = shuffled == label
        turn[mine] = np.arange(mine.sum())
    chosen = order[np.lexsort((classes[shuffled], turn))[:num_images]]
    return np.asarray(rng.permutation(chosen))


@dataclass(frozen=True)
class Probe:
    """The fixed batch and what the trained teacher makes of it, computed once per run."""

    images: Tensor  # (B, 3, S, S) as students see them, ImageNet-normalised
    labels: Tensor  # (B,) int64
    teacher_maps: tuple[Tensor, ...] = ()  # stage maps (B, C, H, W), coarsest last; none where nothing reads them
    teacher_logits: Tensor | None = None  # (B, classes); likewise
    # Of the student's pass for `attention_similarity`; other readings are always float32.
    precision: torch.dtype = torch.float32
    chunk: int = 32  # images at a time in that pass: bounds its memory, and what it gives does not depend on it

    def to(self, device: torch.device | str) -> Probe:
        """The same on another device."""
        return dataclasses.replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            teacher_maps=tuple(stage.to(device) for stage in self.teacher_maps),
            teacher_logits=None if self.teacher_logits is None else self.teacher_logits.to(device),
        )

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, the teacher's last map) of at most `chunk` images at a time, images in `precision`."""
        images = self.images.to(self.precision)
        return zip(torch.split(images, self.chunk), torch.split(self.teacher_maps[-1], self.chunk), strict=True)


@torch.no_grad()
def build_probe(train: Split, settings: ProbeSettings, student_size: int, teacher: Teacher | None) -> Probe:
    """Images at the student's size in pixels, and what the teacher, where one looks, makes of the same at its own size.

    It runs in evaluation mode and in float32. Raises UsageError for a corrupt image, naming it.
    """
    chosen = train.take(select_balanced(train.labels, settings.num_images, settings.seed))
    images = [chosen[i][0] for i in range(len(chosen))]

    def at(size: int) -> Tensor:
        return torch.stack([eval_tensor(image, size) for image in images])

    with exact_float32():
        logits, maps = (None, ()) if teacher is None else teacher.freeze()(at(teacher.image_size))
    precision = getattr(torch, settings.precision)
    return Probe(at(student_size), torch.from_numpy(chosen.labels), tuple(maps), logits, precision)
