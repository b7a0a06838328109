"""One student while it trains: model, optimiser, schedule, average, and which of its weights are kept. Plain torch."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tvt_ray.distillation.losses import GuidedStudent, Outputs, distillation_loss
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.spaces import Arch, Space
from tvt_ray.students import build_student
from tvt_ray.students.layers import Student, shared_out
from tvt_ray.students.selection import select_weights
from tvt_ray.students.sources import Source
from tvt_ray.training.loaders import seed_torch
from tvt_ray.training.precision import autocast, choose_precision
from tvt_ray.training.selection import Selection, resolve_weights


@dataclass(frozen=True)
class DistillTask:
    """One student to train."""

    space: Space
    arch: Arch
    num_classes: int
    settings: DistillSettings
    plugins: tuple[str, ...] = ()  # modules that add rows to the tables, which each process imports
    label: str = ""  # tells trainings of one architecture apart

    @property
    def arch_id(self) -> str:
        """Of its architecture."""
        return self.space.arch_id(self.arch)

    @property
    def name(self) -> str:
        """Under which others hear of the training: the architecture's id, unless it has a label."""
        return self.label or self.arch_id


@dataclass(frozen=True)
class WorkerContext:
    """Which of a training's workers this is, what it runs on, and how a model is made distributed there (DDP)."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module

    def agreed(self, yes: bool) -> bool:
        """What the first worker says, on all of them."""
        if self.world_size == 1:
            return yes
        said = torch.tensor([yes], dtype=torch.int8, device=self.device)
        torch.distributed.broadcast(said, 0)
        return bool(said)


class Learner:
    """Holds all that changes while a student trains."""

    def __init__(
        self,
        task: DistillTask,
        teacher_channels: Sequence[int],
        num_val: int,
        steps: int,
        worker: WorkerContext,
        init: Source | None = None,
    ) -> None:
        """`steps`: batches in an epoch. `init`: whose weights the student begins with."""
        self.task, self.worker, self.steps, settings = task, worker, steps, task.settings
        student = build_student(task.space, task.arch, task.num_classes, settings.seed)
        if init is not None:
            select_weights(init, student, task.arch_id)
        if settings.zero_head:
            nn.init.zeros_(student.head.weight)
            nn.init.zeros_(student.head.bias)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)  # of the projections
            self.guided = GuidedStudent(student, teacher_channels, settings.loss).to(worker.device)
        if settings.channels_last:
            self.guided.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.guided, settings.weight_decay), lr=settings.lr)
        self.schedule = self._make_schedule()
        self.average = _timm_average(self.guided.student, settings.ema_decay)
        self.selection = Selection(resolve_weights(settings.weights, num_val, self.average is not None))
        self.precision: torch.dtype | None = None
        self.precision_chosen = False
        self.scaler = torch.amp.GradScaler(worker.device.type, enabled=False)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        model = worker.wrap(self.guided)
        self.model: Any = torch.compile(model) if settings.compile else model

    def _make_schedule(self) -> Any:
        """timm's cosine with linear warm-up, per step rather than per epoch, so that short runs are smooth too."""
        from timm.scheduler import CosineLRScheduler

        settings = self.task.settings
        return CosineLRScheduler(
            self.optimizer,
            t_initial=settings.epochs * self.steps,
            lr_min=settings.min_lr,
            warmup_t=min(settings.warmup_epochs, settings.epochs // 2) * self.steps,
            warmup_lr_init=settings.warmup_lr,
            t_in_epochs=False,
        )

    @property
    def student(self) -> Student:
        """What is trained, without what serves the loss alone."""
        return self.guided.student

    def train_step(
        self, step: int, images: Tensor, targets: Tensor, taught: Outputs, batch_size: int
    ) -> dict[str, Tensor]:
        """The `step`-th batch of the epoch, a step of the optimiser where its gradients are due: the loss's terms.

        `batch_size`: images of the batch over all workers, of which these are this worker's share. The gradient is of
        the mean over all of them; the terms are means over this worker's.
        """
        self.model.train()
        self._seed_step(step)
        self._choose_precision(images, targets, taught)
        settings, worker = self.task.settings, self.worker
        self.schedule.step_update(self.epoch * self.steps + step)
        with autocast(self.precision, worker.device), shared_out(worker.rank, worker.world_size, batch_size):
            terms = distillation_loss(self.model(images), taught, targets, settings.loss)
        share = len(images) * worker.world_size / batch_size
        group = _group(step, settings.grad_accum_steps, self.steps)
        if step == group.start:
            self.optimizer.zero_grad()
        self.scaler.scale(terms["loss"] * (share / len(group))).backward()  # type: ignore[no-untyped-call]
        if step == group[-1]:
            self._update(step)
        return {name: value.detach() for name, value in terms.items()}

    def _update(self, step: int) -> None:
        if self.task.settings.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.guided.parameters(), self.task.settings.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.student, step=self.epoch * self.steps + step)

    def _seed_step(self, step: int) -> None:
        """Of stochastic depth: by architecture, so that it does not depend on who learns beside it."""
        key = f"{self.task.settings.seed}/{self.task.arch_id}/{self.epoch}/{step}"
        seed_torch(random.Random(key).getrandbits(62))

    def _choose_precision(self, images: Tensor, targets: Tensor, taught: Outputs) -> None:
        """Once; a training that goes on elsewhere keeps to what was chosen."""
        if self.precision_chosen:
            return
        rehearse = functools.partial(self.rehearse, images, targets, taught)
        with torch.random.fork_rng(devices=[]):
            self.set_precision(choose_precision(self.task.settings.amp, self.worker.device, rehearse))

    def rehearse(self, images: Tensor, targets: Tensor, taught: Outputs) -> None:
        """What a step computes, without the step: for who times it."""
        self.guided.train()
        distillation_loss(self.guided(images), taught, targets, self.task.settings.loss)["loss"].backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad()

    def set_precision(self, precision: torch.dtype | None) -> None:
        """What the rest of the training computes in."""
        self.precision, self.precision_chosen = precision, True
        self.scaler = torch.amp.GradScaler(self.worker.device.type, enabled=precision is torch.float16)

    def end_epoch(self, losses: Mapping[str, float], measure: Callable[[nn.Module], float]) -> dict[str, float]:
        """Validates with `measure` (a model -> percent), keeps what is to be kept: accuracies beside the losses."""
        self.epoch += 1
        metrics = {"epoch": self.epoch, **losses, "val_acc": measure(self.student)}
        if self.average is not None:
            metrics["ema_val_acc"] = measure(self.average.module)
        averaged = self.selection.rule == "ema"
        kept = self.average.module if averaged else self.student
        self.selection.offer(self.epoch, metrics["ema_val_acc" if averaged else "val_acc"], kept.state_dict())
        return {**metrics, "kept_val_acc": self.selection.val_acc, "lr": self.optimizer.param_groups[0]["lr"]}

    def kept(self) -> Student:
        """The student with the weights that are kept."""
        self.student.load_state_dict(self.selection.state)
        return self.student

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, projections included; loads with weights_only=True."""
        return {
            "guided": self.guided.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "selection": self.selection.state_dict(),
            "precision": str(self.precision).removeprefix("torch.") if self.precision_chosen else "",
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        self.guided.load_state_dict(state["guided"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.selection.load_state_dict(state["selection"])
        if state["precision"]:
            self.set_precision(getattr(torch, state["precision"], None))
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.history = state["epoch"], list(state["history"])


def _group(step: int, size: int, steps: int) -> range:
    """The steps whose gradients are added up with this one's; the last of an epoch may be fewer."""
    start = step // size * size
    return range(start, min(start + size, steps))


def _timm_average(student: Student, decay: float | None) -> Any:
    """A moving average that begins fast: after n steps its decay is at most 1 - (n + 1)^(-2/3)."""
    if decay is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(student, decay=decay, use_warmup=True)


def _parameter_groups(guided: GuidedStudent, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices alone; timm's rule (biases and norms are vectors) plus the student's named tokens."""
    from timm.optim import param_groups_weight_decay

    exempt = [f"student.{name}" for name in guided.student.no_weight_decay]
    groups: list[dict[str, Any]] = param_groups_weight_decay(guided, weight_decay, no_weight_decay_list=exempt)
    return groups
