"""The one fixed batch on which every architecture is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import eval_tensor
from tvt_ray.errors import UsageError


class ProbeSettings(BaseModel):
    """The published code uses 128 images; fewer cost proportionally less."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_images: PositiveInt = 32
    seed: int = 0
    num_inits: PositiveInt = 1  # initialisations of a student that its readings are the mean of
    # Of the student's pass for `t`. Half of float32's time where processor or GPU has bfloat16; docs/performance.md
    # says how the ranking compares. Other readings are float32 always.
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class ProbeImages:
    """The batch at two resolutions, both ImageNet-normalised and resized from the same images."""

    student: Tensor  # (B, 3, S, S)
    teacher: Tensor  # (B, 3, T, T)
    labels: Tensor  # (B,) int64


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


def build_probe_images(train: Split, settings: ProbeSettings, student_size: int, teacher_size: int) -> ProbeImages:
    """Sizes in pixels. Raises UsageError for a corrupt image, naming it."""
    chosen = train.take(select_balanced(train.labels, settings.num_images, settings.seed))
    images = [chosen[i][0] for i in range(len(chosen))]
    student, teacher = (
        torch.stack([eval_tensor(image, size) for image in images]) for size in (student_size, teacher_size)
    )
    return ProbeImages(student, teacher, torch.from_numpy(chosen.labels))
