"""Students that train side by side on the same batches: images are augmented, and seen by the teacher, once for all.

Every training is one of a cohort, of a single student or of many; any number of workers, resumable at every epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tvt_ray.data.batches import eval_loader
from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import train_transform
from tvt_ray.distillation.learner import DistillTask, Learner, WorkerContext
from tvt_ray.distillation.losses import Outputs
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.distillation.targets import Targets
from tvt_ray.students.sources import Source
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.training.loaders import Batch, ShuffledBatches, generators_as_they_were, seed_everything, train_loader
from tvt_ray.vision_compat import ensure_torchvision

Metrics = dict[str, float]


@dataclass(frozen=True)
class DistillInputs:
    """What all students of a run share: images that need no disk, the frozen teacher, and weights to begin with."""

    train: Split
    val: Split
    test: Split
    teacher: Teacher
    init: Source | None = None  # of students whose settings name some; None: all begin with what is drawn


class Cohort:
    """Students with one recipe, dataset and teacher. What a student learns does not depend on who learns beside it.

    Losses may differ, since they concern a student alone: one may follow the teacher beside one that does not. So may
    `init`: a student begins with the inputs' weights where its settings name some, else with what is drawn.
    """

    def __init__(
        self,
        tasks: Sequence[DistillTask],
        inputs: DistillInputs,
        worker: WorkerContext,
        loader_workers: int = 0,
    ) -> None:
        """All tasks have the same image size, classes, and settings but for loss and init, and names of their own.

        Raises ValueError otherwise.
        """
        ensure_torchvision()
        self.settings, self.image_size, num_classes = shared_by(tasks)
        self.taught = any(task.settings.loss.follow_teacher for task in tasks)
        self.inputs, self.worker, labels = inputs, worker, inputs.train.labels
        self.teacher = inputs.teacher.to(worker.device).freeze()
        self.targets = Targets(self.settings, labels, num_classes)
        self.batches = ShuffledBatches(
            labels, self.settings.batch_size, self.settings.seed, worker.rank, worker.world_size, self.settings.sampling
        )
        self.load_with(loader_workers)
        channels = self._teacher_channels()
        self.learners = {
            task.name: Learner(
                task, channels, len(inputs.val), len(self.batches), worker, inputs.init if task.settings.init else None
            )
            for task in tasks
        }

    def load_with(self, num_workers: int) -> None:
        """From now on, so many processes load and augment images (0: this one)."""
        transform = train_transform(self.settings.augment, self.image_size)
        self.loader = train_loader(self.inputs.train, transform, self.batches, num_workers)

    @torch.inference_mode()
    def _teacher_channels(self) -> list[int]:
        size = self.teacher.image_size
        _, maps = self.teacher(torch.zeros(1, 3, size, size, device=self.worker.device))
        return [stage.shape[1] for stage in maps]

    @property
    def epoch(self) -> int:
        """Epochs that all of them have behind them."""
        return min(learner.epoch for learner in self.learners.values())

    @property
    def done(self) -> bool:
        """Whether all epochs are behind them."""
        return self.epoch >= self.settings.epochs

    def run_epoch(self, on_batch: Callable[[int], None] = lambda images: None) -> dict[str, Metrics]:
        """Trains for an epoch all students that lack it, and validates them: each one's metrics.

        `on_batch` hears how many images each batch had, over all students of this worker.
        """
        with generators_as_they_were():
            return self._run_epoch(on_batch)

    def _run_epoch(self, on_batch: Callable[[int], None]) -> dict[str, Metrics]:
        start, epoch, metrics = time.perf_counter(), self.epoch, dict[str, Metrics]()
        behind = [learner for learner in self.learners.values() if learner.epoch == epoch]
        losses, waited = self._train_epoch(behind, on_batch)
        train_s = time.perf_counter() - start
        for learner, terms in zip(behind, losses, strict=True):
            begun = time.perf_counter()
            measured = learner.end_epoch(terms, lambda student: self.accuracy(student, self.inputs.val))
            speed = {
                "images_per_s": len(self.inputs.train) / train_s,
                "data_wait_share": waited / train_s,
                "seconds": train_s / len(behind) + time.perf_counter() - begun,
            }
            learner.history.append({**measured, **speed})
            metrics[learner.task.name] = learner.history[-1]
        return metrics

    def _train_epoch(self, learners: Sequence[Learner], on_batch: Callable[[int], None]) -> tuple[list[Metrics], float]:
        """Each learner's mean terms, and the seconds that went into waiting for images."""
        epoch, sizes, device = self.epoch, self.batches.sizes(), self.worker.device
        self.batches.set_epoch(epoch)
        totals: list[dict[str, Tensor]] = [{} for _ in learners]
        seen, waited, batches = 0, 0.0, iter(self.loader)
        for step, size in enumerate(sizes):
            asked = time.perf_counter()
            images, labels = self.placed(next(batches))
            waited += time.perf_counter() - asked
            seed_everything(f"{self.settings.seed}/{epoch}/{step}/{self.worker.rank}")  # of mixing
            mixed, targets = self.targets(images, labels)
            taught = self.teach(mixed)
            for learner, total in zip(learners, totals, strict=True):
                for name, value in learner.train_step(step, mixed, targets, taught, size).items():
                    total[name] = total.get(name, torch.zeros((), device=device)) + len(images) * value
            seen += len(images)
            on_batch(len(images) * len(learners))
        return [{name: value.item() / seen for name, value in total.items()} for total in totals], waited

    def placed(self, batch: Batch) -> Batch:
        """On the worker's device, in the memory format that the settings ask for."""
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        images, labels = (part.to(self.worker.device, non_blocking=True) for part in batch)
        return images.contiguous(memory_format=layout), labels

    @torch.no_grad()
    def teach(self, images: Tensor) -> Outputs:
        """What the teacher makes of a batch: logits and stage maps; nothing where no student's loss asks."""
        if not self.taught:
            return torch.empty(0), ()
        taught: Outputs = self.teacher(images)
        return taught

    @torch.inference_mode()
    def accuracy(self, student: nn.Module, split: Split) -> float:
        """Top-1 accuracy in percent, each worker reading its share of the images."""
        student, worker = student.eval(), self.worker
        share = split.take(np.arange(worker.rank, len(split), worker.world_size))
        correct = torch.zeros(2, dtype=torch.float64, device=worker.device)
        for images, labels in eval_loader(share, self.image_size):
            hits = student(images.to(worker.device)).argmax(1) == labels.to(worker.device)
            correct += torch.tensor([hits.sum(), len(hits)], device=worker.device)
        if worker.world_size > 1:
            torch.distributed.all_reduce(correct)
        return 100 * float(correct[0] / correct[1])

    def test(self) -> dict[str, float]:
        """Test accuracy in percent of each student with the weights that are kept, which it then holds."""
        return {name: self.accuracy(learner.kept(), self.inputs.test) for name, learner in self.learners.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, by student; loads with weights_only=True."""
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken. A student that it lacks begins, and catches up."""
        for name, state in states.items():
            self.learners[name].load_state_dict(state)


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
