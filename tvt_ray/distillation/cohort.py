"""Several students trained side by side on the same batches: augmentation and the teacher's pass are paid once.

For benchmarks that train many small students; a search's few best ones are Ray Train jobs of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tvt_ray.distillation.distiller import Distiller, DistillInputs, DistillTask, WorkerContext, seed_everything


class Cohort:
    """Students with one recipe, dataset and teacher. What a student learns does not depend on who learns beside it."""

    def __init__(self, tasks: Sequence[DistillTask], inputs: DistillInputs, device: torch.device | str = "cpu") -> None:
        """All tasks have the same settings, image size and number of classes. Raises ValueError otherwise."""
        shared = [(task.settings, task.space.image_size, task.num_classes) for task in tasks]
        if any(each != shared[0] for each in shared):
            raise ValueError("a cohort's students share recipe, image size and classes")
        self.worker = WorkerContext(torch.device(device))
        self.distillers = [Distiller(task, inputs, self.worker) for task in tasks]
        self.ids = [task.space.arch_id(task.arch) for task in tasks]

    @property
    def epoch(self) -> int:
        """Epochs that all of them have behind them."""
        return self.distillers[0].epoch

    @property
    def done(self) -> bool:
        """Whether all epochs are behind them."""
        return self.distillers[0].done

    def run_epoch(self, on_batch: Callable[[int], None] = lambda images: None) -> None:
        """Trains all students for an epoch. `on_batch` hears how many images each batch had, over all students."""
        first = self.distillers[0]
        seed_everything(f"{first.task.settings.seed}/{self.epoch}/{self.worker.rank}")
        first.sampler.set_epoch(self.epoch)
        for step, (images, labels) in enumerate(first.loader):
            images, labels = images.to(self.worker.device), labels.to(self.worker.device)
            self._train_on(step, images, labels)
            on_batch(len(images) * len(self.distillers))
        for distiller in self.distillers:
            distiller.epoch += 1

    def _train_on(self, step: int, images: Tensor, labels: Tensor) -> None:
        taught = self.distillers[0].teach(images)
        devices = [self.worker.device] if self.worker.device.type == "cuda" else []
        for arch_id, distiller in zip(self.ids, self.distillers, strict=True):
            # Stochastic depth draws here; forked, neither the others' draws nor the augmentation's depend on it.
            with torch.random.fork_rng(devices):
                torch.manual_seed(random.Random(f"{arch_id}/{self.epoch}/{step}").getrandbits(62))
                distiller.train_step(step, images, labels, taught)

    def test(self) -> dict[str, float]:
        """Test accuracy in percent of each student as it is now, by architecture."""
        pairs = zip(self.ids, self.distillers, strict=True)
        return {arch_id: distiller.accuracy(distiller.inputs.test) for arch_id, distiller in pairs}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; loads with weights_only=True."""
        return {
            arch_id: {
                "guided": distiller.guided.state_dict(),
                "optimizer": distiller.optimizer.state_dict(),
                "epoch": distiller.epoch,
            }
            for arch_id, distiller in zip(self.ids, self.distillers, strict=True)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        for arch_id, distiller in zip(self.ids, self.distillers, strict=True):
            distiller.guided.load_state_dict(state[arch_id]["guided"])
            distiller.optimizer.load_state_dict(state[arch_id]["optimizer"])
            distiller.epoch = state[arch_id]["epoch"]
