"""Students that train side by side on the same batches: images are augmented, and seen by the teacher, once for all.

Every training is one of a cohort, of a single student or of many; any number of workers, resumable at every epoch.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import train_transform
from tvt_ray.distillation.learner import DistillTask, StudentLearner
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.training.learner import TrainBatch, WorkerContext
from tvt_ray.training.loaders import ShuffledBatches, seed_everything
from tvt_ray.training.loop import Loop
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.weight_source import Source

Tasks: TypeAlias = Mapping[str, DistillTask]  # by places in a folder, which tell seeds apart


@dataclass(frozen=True)
class DistillInputs:
    """What all students of a run share: images that need no disk, the frozen teacher, and weights to begin with."""

    train: Split
    val: Split
    test: Split
    teacher: Teacher
    init: Source | None = None  # of students whose settings name some; None: all begin with what is drawn


class Cohort(Loop[StudentLearner]):
    """Students with one recipe, dataset and teacher. What a student learns does not depend on who learns beside it.

    Losses may differ, since they concern a student alone: one may follow the teacher beside one that does not. So may
    `init`: a student begins with the inputs' weights where its settings name some, else with what is drawn.
    """

    def __init__(self, tasks: Sequence[DistillTask], inputs: DistillInputs, worker: WorkerContext) -> None:
        """All tasks have the same image size, classes, and settings but for loss and init, and names of their own.

        Raises ValueError otherwise.
        """
        ensure_torchvision()
        settings, image_size, num_classes = shared_by(tasks)
        self.settings, self.inputs, labels = settings, inputs, inputs.train.labels
        self.taught = any(task.settings.loss.follow_teacher for task in tasks)
        self.teacher = inputs.teacher.to(worker.device).freeze()
        self.targets = Targets(settings, labels, num_classes)
        batches = ShuffledBatches(
            labels, settings.batch_size, settings.seed, worker.rank, worker.world_size, settings.sampling
        )
        channels, steps = _map_channels(self.teacher, worker.device), len(batches)
        super().__init__(
            {task.name: StudentLearner(task, channels, len(inputs.val), steps, worker, inputs.init) for task in tasks},
            inputs.train,
            inputs.val,
            image_size,
            train_transform(settings.augment, image_size),
            batches,
            settings.epochs,
            worker,
            settings.channels_last,
        )

    @torch.no_grad()
    def prepare(self, step: int, images: Tensor, labels: Tensor) -> TrainBatch:
        """Images and labels mixed as the settings say, and what the teacher makes of them where a loss asks."""
        seed_everything(f"{self.settings.seed}/{self.epoch}/{step}/{self.worker.rank}")  # of mixing
        images, targets = self.targets(images, labels)
        batch = TrainBatch(step, images, targets, self.sizes[step])
        return dataclasses.replace(batch, taught=self.teacher(images)) if self.taught else batch

    def test(self) -> dict[str, float]:
        """Test accuracy in percent of each student with the weights that are kept, which it then holds."""
        return self.accuracies({name: learner.kept() for name, learner in self.learners.items()}, self.inputs.test)


@torch.inference_mode()
def _map_channels(teacher: Teacher, device: torch.device) -> list[int]:
    _, maps = teacher(torch.zeros(1, 3, teacher.image_size, teacher.image_size, device=device))
    return [stage.shape[1] for stage in maps]


def shared_by(tasks: Sequence[DistillTask]) -> tuple[DistillSettings, int, int]:
    """Settings, with the first one's loss and init, image size in pixels, and classes.

    Raises ValueError where they differ.
    """
    own = {"loss": tasks[0].settings.loss, "init": tasks[0].settings.init}
    shared = [(task.settings.model_copy(update=own), task.space.image_size, task.num_classes) for task in tasks]
    if any(each != shared[0] for each in shared):
        raise ValueError("a cohort's students share recipe, image size and classes")
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"a cohort's students have names of their own; got {[task.name for task in tasks]}")
    return shared[0]


def cohorts_of(tasks: Tasks, count: int, largest: int | None = None) -> list[Tasks]:
    """Groups of tasks of one seed, none above `largest`, by which `count` cohorts at a time are done soonest.

    What students of a cohort share, images and teacher, is reckoned to take as long as one of them.
    """
    by_seed: dict[int, list[str]] = {}
    for name, task in tasks.items():
        by_seed.setdefault(task.settings.seed, []).append(name)

    def parts(size: int) -> list[list[str]]:
        counts = [(names, math.ceil(len(names) / size)) for names in by_seed.values()]
        return [names[first::each] for names, each in counts for first in range(each)]

    def time(size: int) -> int:
        ends = [0] * count
        for part in parts(size):
            heapq.heapreplace(ends, ends[0] + len(part) + 1)
        return max(ends)

    size = min(range(1, min(largest or len(tasks), len(tasks)) + 1), key=time)
    return [{name: tasks[name] for name in part} for part in parts(size)]


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
