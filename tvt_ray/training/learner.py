"""A network while it trains: what teachers and students have in common, and which weights are kept. Plain torch."""

from __future__ import annotations

import copy
import functools
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from tvt_ray.training.pace import Amp, autocast, choose_precision

Metrics: TypeAlias = dict[str, float]
PRECISIONS = (None, torch.bfloat16, torch.float16)  # that a training may compute in; None: float32
Weights = Literal["auto", "best", "last", "ema"]
# Below this a validation accuracy near 50 % has a standard error of over a point, and its best epoch is a lucky one
# (on ants and bees, 24 images, the last epoch was the better one on the test split in 8 trainings of 10).
FEW_IMAGES = 2500


class Outputs(NamedTuple):
    """What a network makes of images, where it is compared with another."""

    logits: Tensor  # (B, classes)
    maps: tuple[Tensor, ...] = ()  # (B, C, H, W)
    features: Tensor | None = None  # (B, C): what a classifier reads


@dataclass(frozen=True)
class WorkerContext:
    """Which of a training's workers this is, what it runs on, and how a model is made distributed there (DDP)."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module

    def agreed(self, number: int) -> int:
        """What the first worker says, told to all of them: a small number, or whether something is so."""
        if self.world_size == 1:
            return number
        said = torch.tensor([number], dtype=torch.int8, device=self.device)
        torch.distributed.broadcast(said, 0)
        return int(said)


@dataclass(frozen=True)
class TrainBatch:
    """A batch as all learners of a loop are given it."""

    step: int  # in its epoch
    images: Tensor  # (B, 3, H, W), of this worker; none where all that is computed of them was kept
    targets: Tensor  # labels (B,), or shares of classes (B, classes)
    size: int  # images over all workers
    # what a teacher makes of the images, where there is one
    taught: Outputs = field(default_factory=lambda: Outputs(torch.empty(0)))
    stems: Mapping[str, Tensor] = field(default_factory=dict)  # what frozen stems make of them, (B, C, H, W) by kind


class Learner(ABC):
    """Holds all that changes while a network trains. A kind of learner brings network, optimiser, schedule and loss.

    What stays frozen is left out of the optimiser, and `train` of its own module keeps it in evaluation mode.
    """

    def __init__(
        self,
        network: nn.Module,
        core: nn.Module,
        optimizer: torch.optim.Optimizer,
        worker: WorkerContext,
        steps: int,
        num_val: int,
        weights: Weights,
        *,
        ema_decay: float | None = None,
        grad_accum_steps: int = 1,
        clip_grad: float | None = None,
        amp: Amp = "off",
        compiled: bool = False,
    ) -> None:
        """`core`: of the network, what is validated and kept. `steps`: batches in an epoch. `num_val`: images that
        validate. `grad_accum_steps`: batches for one step of the optimiser.
        """
        self.network, self.core, self.optimizer, self.worker, self.steps = network, core, optimizer, worker, steps
        self.grad_accum_steps, self.clip_grad, self.amp = grad_accum_steps, clip_grad, amp
        self.average = _timm_average(core, ema_decay)
        self.selection = Selection(resolve_weights(weights, num_val, self.average is not None))
        self.precision: torch.dtype | None = None
        self.precision_chosen = False
        self.scaler = torch.amp.GradScaler(worker.device.type, enabled=False)
        self.epoch = 0
        self.history: list[Metrics] = []
        model = worker.wrap(network)
        self.model: Any = torch.compile(model) if compiled else model

    @abstractmethod
    def losses(self, model: Any, batch: TrainBatch) -> dict[str, Tensor]:
        """The loss's terms, as means over this worker's images, and `loss`, which is minimised."""

    @abstractmethod
    def _begin_step(self, step: int) -> None:
        """Seeds what the network draws, and sets the learning rate where that is done beforehand."""

    def train_step(self, batch: TrainBatch) -> dict[str, Tensor]:
        """A step of the optimiser where gradients are due: the loss's terms.

        The gradient is of the mean over all workers' images.
        """
        self.model.train()
        self._begin_step(batch.step)
        self.settle_precision(batch)
        with autocast(self.precision, self.worker.device):
            terms = self.losses(self.model, batch)
        share, group = len(batch.targets) * self.worker.world_size / batch.size, self._group(batch.step)
        if batch.step == group.start:
            self.optimizer.zero_grad()
        self.scaler.scale(terms["loss"] * (share / len(group))).backward()  # type: ignore[no-untyped-call]
        if batch.step == group[-1]:
            self._update(batch.step)
        return {name: value.detach() for name, value in terms.items()}

    def _group(self, step: int) -> range:
        """The steps whose gradients are added up with this one's; the last of an epoch may be fewer."""
        start = step // self.grad_accum_steps * self.grad_accum_steps
        return range(start, min(start + self.grad_accum_steps, self.steps))

    def _update(self, step: int) -> None:
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.core, step=self.epoch * self.steps + step)

    def settle_precision(self, batch: TrainBatch) -> None:
        """Once, by what a step takes; a training that goes on elsewhere keeps to what was chosen.

        Of several workers the first one's timing decides: gradients of one precision alone can be averaged, since those
        in float16 are scaled.
        """
        if not self.precision_chosen:
            with torch.random.fork_rng(devices=[]):
                rehearse = functools.partial(self.rehearse, batch)
                chosen = choose_precision(self.amp, self.worker.device, rehearse)
            self.set_precision(PRECISIONS[self.worker.agreed(PRECISIONS.index(chosen))])

    def rehearse(self, batch: TrainBatch) -> None:
        """What a step computes, without the step: for who times it. Statistics of BatchNorm move."""
        self.network.train()
        with autocast(self.precision, self.worker.device):
            loss = self.losses(self.network, batch)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad()

    def set_precision(self, precision: torch.dtype | None) -> None:
        """Computes in this precision from now on; None is float32."""
        self.precision, self.precision_chosen = precision, True
        self.scaler = torch.amp.GradScaler(self.worker.device.type, enabled=precision is torch.float16)

    def validated(self) -> dict[str, nn.Module]:
        """The networks that are validated after an epoch, by the metrics that they give."""
        return self.networks()

    def networks(self) -> dict[str, nn.Module]:
        """Those of which one is kept, by the metric of its validation."""
        return {"val_acc": self.core, **({} if self.average is None else {"ema_val_acc": self.average.module})}

    def end_epoch(self, losses: Metrics, accuracies: Metrics) -> Metrics:
        """Keeps what is to be kept, by the accuracies (percent) of what is validated: the epoch's metrics.

        Without accuracies the later weights are kept, whatever the rule.
        """
        self.epoch += 1
        chosen = "ema_val_acc" if self.average is not None and self.selection.rule == "ema" else "val_acc"
        self.selection.offer(self.epoch, accuracies.get(chosen, 0.0), self.networks()[chosen].state_dict())
        kept = {"kept_val_acc": self.selection.val_acc} if accuracies else {}
        return {"epoch": self.epoch, **losses, **accuracies, **kept, "lr": self.optimizer.param_groups[0]["lr"]}

    def kept(self) -> nn.Module:
        """The core, which now has the weights that are kept."""
        self.core.load_state_dict(self.selection.state)
        return self.core

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, by its key in this learner's."""
        average = {} if self.average is None else {"average": self.average.module}
        return {"optimizer": self.optimizer, "selection": self.selection, "scaler": self.scaler, **average}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; loads with weights_only=True."""
        precision = str(self.precision).removeprefix("torch.") if self.precision_chosen else ""
        states = {key: part.state_dict() for key, part in self._parts().items()}
        return {**states, "precision": precision, "epoch": self.epoch, "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken. What the state does not say stays as it is."""
        state = {**self.state_dict(), **state}
        if state["precision"]:
            self.set_precision(getattr(torch, state["precision"], None))
        for key, part in self._parts().items():
            part.load_state_dict(state[key])
        self.epoch, self.history = state["epoch"], list(state["history"])


def _timm_average(core: nn.Module, decay: float | None) -> Any:
    """A moving average that begins fast: after n steps its decay is at most 1 - (n + 1)^(-2/3)."""
    if decay is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(core, decay=decay, use_warmup=True)


def resolve_weights(weights: Weights, num_val: int, has_ema: bool) -> Weights:
    """What `auto` stands for: the average where there is one and validation is small, then the last; else the best."""
    if weights != "auto":
        return weights
    if num_val >= FEW_IMAGES:
        return "best"
    return "ema" if has_ema else "last"


class Selection:
    """The weights that are kept so far, and the validation accuracy (percent) that they have.

    best: of the epoch that did best on validation, of equals the later one. last: of the last epoch. ema: the moving
    average after the last epoch.
    """

    def __init__(self, rule: Weights) -> None:
        self.rule, self.val_acc, self.epoch = rule, -1.0, 0
        self.state: dict[str, Tensor] = {}

    def offer(self, epoch: int, val_acc: float, state: Mapping[str, Tensor]) -> None:
        """The weights after an epoch (counted from 1): the student's own or, for `ema`, their average's."""
        if self.rule == "best" and val_acc < self.val_acc:
            return
        self.epoch, self.val_acc, self.state = epoch, val_acc, copy.deepcopy(dict(state))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from; loads with weights_only=True."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        vars(self).update(state)


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """The state that a training goes on from, in a form that `from_bytes` reads without unpickling objects."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """A state, its tensors on the CPU and no one else's: optimisers would share those that they are given.

    Who loads it copies what belongs on a device. AdamW's counts of steps do not: on a GPU each step would wait for
    them.
    """
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
