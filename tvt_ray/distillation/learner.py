"""One student while it trains: model, optimiser, schedule, average, and which of its weights are kept. Plain torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tvt_ray.distillation.losses import GuidedStudent, distillation_loss
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.training.learner import Learner, TrainBatch, WorkerContext
from tvt_ray.training.loaders import seed_torch
from tvt_ray.vits import Arch, Space, build_student
from tvt_ray.vits.layers import shared_out
from tvt_ray.vits.starts import begin
from tvt_ray.vits.student import Student
from tvt_ray.vits.trunk_kernels import speed_up
from tvt_ray.vits.trunks import Trunk
from tvt_ray.vits.weight_selection import select_weights
from tvt_ray.vits.weight_source import Source


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
        """The id of its architecture, which trainings by other seeds share."""
        return self.space.arch_id(self.arch)

    @property
    def name(self) -> str:
        """Under which others hear of the training: the architecture's id, unless it has a label."""
        return self.label or self.arch_id


class StudentLearner(Learner):
    """A student: AdamW, timm's cosine, and a loss that may follow a teacher."""

    def __init__(
        self,
        task: DistillTask,
        teacher_channels: Sequence[int],
        teacher_features: int,
        num_val: int,
        steps: int,
        worker: WorkerContext,
        init: Source | None = None,
        lender: nn.Module | None = None,
    ) -> None:
        """`steps`: batches in an epoch. `init`: whose weights the student begins with, where its settings name some.
        `lender`: the network that stages of its stem are inherited from, where it has some.
        """
        self.task, settings = task, task.settings
        self.thawed = False  # whether a stem that would be frozen trains all the same, for who times that
        student = build_student(task.space, task.arch, task.num_classes, settings.seed)
        self.trunk = student.trunk if settings.stem == "inherited" else None
        if self.trunk is not None and lender is not None:
            self.trunk.inherit(lender)
            self.trunk.frozen_stages = min(settings.stem_frozen_stages, self.trunk.num_stages)
            for module in self.trunk.fixed_modules:
                module.requires_grad_(False)
        begin(student, settings.start, settings.positions, settings.seed)
        if init is not None and settings.init:
            select_weights(init, student, task.arch_id)
        if settings.zero_head:
            nn.init.zeros_(student.head.weight)
            nn.init.zeros_(student.head.bias)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)  # of the projections
            self.guided = GuidedStudent(student, teacher_channels, settings.loss, teacher_features)
        self.guided.to(worker.device)
        if worker.device.type == "cpu" and student.trunk is not None:
            speed_up(student.trunk)
        if settings.channels_last:
            self.guided.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(_parameter_groups(self.guided, settings, self.trunk), lr=settings.lr)
        self.schedule = _timm_schedule(optimizer, settings, steps)
        super().__init__(
            self.guided,
            student,
            optimizer,
            worker,
            steps,
            num_val,
            settings.weights,
            ema_decay=settings.ema_decay,
            grad_accum_steps=settings.grad_accum_steps,
            clip_grad=settings.clip_grad,
            amp=settings.amp,
            compiled=settings.compile,
        )

    def validated(self) -> dict[str, nn.Module]:
        """As of any learner; none where it learns from the images that validate."""
        return super().validated() if self.task.settings.learn_from == "train" else {}

    @property
    def student(self) -> Student:
        """What is trained, without what serves the loss alone."""
        return self.guided.student

    def losses(self, model: Any, batch: TrainBatch) -> dict[str, Tensor]:
        """What the student gives, compared as the settings say with labels and with what a teacher gave."""
        if self.trunk is not None:
            self.trunk.frozen = bool(self.frozen_stem)
        with shared_out(self.worker.rank, self.worker.world_size, batch.size):
            outputs = model(batch.stems.get(self.frozen_stem, batch.images))
        terms = distillation_loss(outputs, batch.taught, batch.targets, self.task.settings.loss)
        if self._frozen_among_workers:
            terms["loss"] = terms["loss"] + 0 * sum(parameter.sum() for parameter in self.trunk_parameters)
        return terms

    @property
    def _frozen_among_workers(self) -> bool:
        """DDP waits for a gradient of every parameter, frozen ones too: they get zeros, of which no step is made."""
        return bool(self.frozen_stem) and self.worker.world_size > 1

    @property
    def trunk_parameters(self) -> list[nn.Parameter]:
        """Of the inherited stages."""
        return [] if self.trunk is None else [each for each in self.trunk.parameters() if each.requires_grad]

    def _update(self, step: int) -> None:
        if self._frozen_among_workers:
            for parameter in self.trunk_parameters:
                parameter.grad = None
        super()._update(step)

    @property
    def frozen_stem(self) -> str:
        """The kind of stem that stays as it is in this epoch: what it makes of an image is the same for all such
        students. Empty where it trains.
        """
        frozen = self.trunk is not None and self.epoch < self.task.settings.stem_frozen_epochs and not self.thawed
        return self.student.patch_embed.kind if frozen else ""

    @torch.no_grad()
    def stem_features(self, images: Tensor) -> list[Tensor]:
        """What the frozen stages make of images: (B, 3, H, W) -> (B, C, H', W')."""
        assert self.trunk is not None
        return [self.trunk.eval()(images)]

    def _begin_step(self, step: int) -> None:
        """Stochastic depth is seeded by architecture, so that it does not depend on who learns beside it."""
        key = f"{self.task.settings.seed}/{self.task.arch_id}/{self.epoch}/{step}"
        seed_torch(random.Random(key).getrandbits(62))
        self.schedule.step_update(self.epoch * self.steps + step)

    def settle_precision(self, batch: TrainBatch) -> None:
        """By a step in which all of the student learns, where there are such: it takes longest."""
        thawed = self.thawed
        self.thawed |= self.task.settings.stem_frozen_epochs < self.task.settings.epochs
        super().settle_precision(batch)
        self.thawed = thawed

    def _parts(self) -> dict[str, Any]:
        return {"guided": self.guided, **super()._parts()}


def _timm_schedule(optimizer: torch.optim.Optimizer, settings: DistillSettings, steps: int) -> Any:
    """timm's cosine with linear warm-up, per step rather than per epoch, so that short runs are smooth too."""
    from timm.scheduler import CosineLRScheduler

    return CosineLRScheduler(
        optimizer,
        t_initial=settings.epochs * steps,
        lr_min=settings.min_lr,
        warmup_t=min(settings.warmup_epochs, settings.epochs // 2) * steps,
        warmup_lr_init=settings.warmup_lr,
        t_in_epochs=False,
    )


def _parameter_groups(guided: GuidedStudent, settings: DistillSettings, trunk: Trunk | None) -> list[dict[str, Any]]:
    """Weight decay on matrices alone; timm's rule (biases and norms are vectors) plus the student's named tokens.

    Inherited stages are groups of their own, of their learning rate.
    """
    from timm.optim import param_groups_weight_decay

    exempt = [f"student.{name}" for name in guided.student.no_weight_decay]
    groups: list[dict[str, Any]] = param_groups_weight_decay(guided, settings.weight_decay, no_weight_decay_list=exempt)
    if trunk is None:
        return groups
    inherited = set(map(id, trunk.parameters()))
    own = [{**group, "params": [p for p in group["params"] if id(p) not in inherited]} for group in groups]
    theirs = [{**group, "params": [p for p in group["params"] if id(p) in inherited]} for group in groups]
    return [*own, *({**group, "lr_scale": settings.stem_lr} for group in theirs)]
