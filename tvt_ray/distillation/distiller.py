"""Training one student with a frozen teacher: plain torch, any number of workers, resumable at every epoch."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from tvt_ray.data.batches import TransformedSplit, eval_loader
from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import train_transform
from tvt_ray.distillation.losses import GuidedStudent, distillation_loss
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.spaces import Arch, Space
from tvt_ray.students import build_student
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.vision_compat import ensure_torchvision


@dataclass(frozen=True)
class DistillTask:
    """One student to train."""

    space: Space
    arch: Arch
    num_classes: int
    settings: DistillSettings
    plugins: tuple[str, ...] = ()  # modules that add rows to the tables, which each process imports


@dataclass(frozen=True)
class DistillInputs:
    """What all students of a run share: images that need no disk, and the frozen teacher."""

    train: Split
    val: Split
    test: Split
    teacher: Teacher


@dataclass(frozen=True)
class WorkerContext:
    """Which of a training's workers this is, and what it runs on."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    loader_workers: int = 0


class Distiller:
    """Holds all that changes while a student trains. `wrap` makes the model distributed (DDP)."""

    def __init__(
        self,
        task: DistillTask,
        inputs: DistillInputs,
        worker: WorkerContext,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        ensure_torchvision()
        self.task, self.inputs, self.worker, settings = task, inputs, worker, task.settings
        self.teacher = inputs.teacher.to(worker.device).freeze()
        student = build_student(task.space, task.arch, task.num_classes, settings.seed)
        torch.manual_seed(settings.seed)  # the projections' initialisation
        self.guided = GuidedStudent(student, self._teacher_channels(), settings.loss).to(worker.device)
        self.model = wrap(self.guided)
        self.loader, self.sampler = self._train_loader()
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.guided, settings.weight_decay), lr=settings.lr)
        self.schedule = self._make_schedule()
        self.epoch, self.best_val_acc = 0, -1.0
        self.best_student: dict[str, Tensor] = copy.deepcopy(self.guided.student.state_dict())
        self.history: list[dict[str, float]] = []

    @torch.inference_mode()
    def _teacher_channels(self) -> list[int]:
        size = self.teacher.image_size
        _, maps = self.teacher(torch.zeros(1, 3, size, size, device=self.worker.device))
        return [stage.shape[1] for stage in maps]

    def _train_loader(self) -> tuple[DataLoader[Any], DistributedSampler[Any]]:
        settings, worker = self.task.settings, self.worker
        data = TransformedSplit(self.inputs.train, train_transform(settings.augment, self.task.space.image_size))
        sampler: DistributedSampler[Any] = DistributedSampler(
            data, worker.world_size, worker.rank, shuffle=True, seed=settings.seed
        )
        per_worker = max(1, min(settings.batch_size // worker.world_size, len(sampler)))
        loader = DataLoader(data, per_worker, sampler=sampler, drop_last=True, num_workers=worker.loader_workers)
        return loader, sampler

    def _make_schedule(self) -> Any:
        """timm's cosine with linear warm-up, per step rather than per epoch, so that short runs are smooth too."""
        from timm.scheduler import CosineLRScheduler

        settings, steps = self.task.settings, len(self.loader)
        return CosineLRScheduler(
            self.optimizer,
            t_initial=settings.epochs * steps,
            lr_min=settings.min_lr,
            warmup_t=min(settings.warmup_epochs, settings.epochs // 2) * steps,
            warmup_lr_init=settings.warmup_lr,
            t_in_epochs=False,
        )

    @property
    def done(self) -> bool:
        """Whether all epochs are behind it."""
        return self.epoch >= self.task.settings.epochs

    def run_epoch(self) -> dict[str, float]:
        """Trains for an epoch, validates, keeps the best weights: the epoch's metrics."""
        start = time.perf_counter()
        seed_everything(f"{self.task.settings.seed}/{self.epoch}/{self.worker.rank}")
        self.sampler.set_epoch(self.epoch)
        losses = self._train_epoch()
        train_s = time.perf_counter() - start
        val_acc = self.accuracy(self.inputs.val)
        if val_acc > self.best_val_acc:
            self.best_val_acc, self.best_student = val_acc, copy.deepcopy(self.guided.student.state_dict())
        self.epoch += 1
        metrics = {
            "epoch": self.epoch,
            **losses,
            "val_acc": val_acc,
            "best_val_acc": self.best_val_acc,
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_s": len(self.sampler) * self.worker.world_size / train_s,
            "seconds": time.perf_counter() - start,
        }
        self.history.append(metrics)
        return metrics

    def _train_epoch(self) -> dict[str, float]:
        device, totals = self.worker.device, dict[str, Tensor]()
        for step, (images, labels) in enumerate(self.loader):
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            for name, value in self.train_step(step, images, labels, self.teach(images)).items():
                totals[name] = totals.get(name, torch.zeros((), device=device)) + value
        return {name: value.item() / len(self.loader) for name, value in totals.items()}

    @torch.no_grad()
    def teach(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the teacher makes of a batch: logits and stage maps."""
        taught: tuple[Tensor, tuple[Tensor, ...]] = self.teacher(images)
        return taught

    def train_step(
        self, step: int, images: Tensor, labels: Tensor, taught: tuple[Tensor, tuple[Tensor, ...]]
    ) -> dict[str, Tensor]:
        """One optimiser step, the `step`-th of the current epoch: the loss and its terms."""
        self.model.train()
        self.schedule.step_update(self.epoch * len(self.loader) + step)
        terms = distillation_loss(self.model(images), taught, labels, self.task.settings.loss)
        self.optimizer.zero_grad()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    @torch.inference_mode()
    def accuracy(self, split: Split) -> float:
        """Top-1 accuracy in percent of the current student, each worker reading its share of the images."""
        student, worker = self.guided.student.eval(), self.worker
        share = split.take(np.arange(worker.rank, len(split), worker.world_size))
        correct = torch.zeros(2, dtype=torch.float64, device=worker.device)
        for images, labels in eval_loader(share, self.task.space.image_size):
            hits = student(images.to(worker.device)).argmax(1) == labels.to(worker.device)
            correct += torch.tensor([hits.sum(), len(hits)], device=worker.device)
        if worker.world_size > 1:
            torch.distributed.all_reduce(correct)
        return 100 * float(correct[0] / correct[1])

    def test(self) -> float:
        """Test accuracy in percent of the weights that did best on validation, which the student then holds."""
        self.guided.student.load_state_dict(self.best_student)
        return self.accuracy(self.inputs.test)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, projections included; loads with weights_only=True."""
        return {
            "guided": self.guided.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "best_val_acc": self.best_val_acc,
            "best_student": self.best_student,
            "history": self.history,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        self.guided.load_state_dict(state["guided"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best_val_acc = state["epoch"], state["best_val_acc"]
        self.best_student, self.history = dict(state["best_student"]), list(state["history"])


def _parameter_groups(guided: GuidedStudent, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices alone; timm's rule (biases and norms are vectors) plus the student's named tokens."""
    from timm.optim import param_groups_weight_decay

    exempt = [f"student.{name}" for name in guided.student.no_weight_decay]
    groups: list[dict[str, Any]] = param_groups_weight_decay(guided, weight_decay, no_weight_decay_list=exempt)
    return groups


def seed_everything(key: str) -> None:
    """Augmentation draws from three generators; seeding each epoch makes a resumed run repeat an uninterrupted one."""
    seed = random.Random(key).getrandbits(32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
