"""What a worker does with a cohort, in a Train job or in an actor of its own; that actor.

Nothing of Ray Train is imported here, for which an actor would wait half a second each time that one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch

from tvt_ray.cluster.metrics import record_epoch
from tvt_ray.cluster.slots import Allotment, pick_device
from tvt_ray.distillation.cohort import Cohort, DistillInputs, Tasks
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.plugins import load_plugins
from tvt_ray.training.learner import Metrics, WorkerContext, from_bytes, to_bytes
from tvt_ray.training.pace import Division
from tvt_ray.vision_compat import ensure_torchvision


def state_name(task: DistillTask) -> str:
    """The folder of a training's state, below the pool's."""
    return f"{task.arch_id}.seed{task.settings.seed}"


@ray.remote
class CohortWorker:
    """Holds images and teacher, and trains one cohort after the other. It keeps nothing: states are the board's."""

    def __init__(self, share: Allotment, plugins: Sequence[str]) -> None:
        load_plugins(plugins)
        ensure_torchvision()  # before a timm teacher is unpickled
        torch.set_num_threads(1)
        self.share = share
        self.inputs: DistillInputs | None = None
        self.division: Division | None = None

    def ready(self) -> None:
        """Returns when this process has begun."""

    def train(self, shared: Sequence[Any], board: Any, tasks: Tasks, epochs: int) -> dict[str, list[Metrics]]:
        """Trains them, from where each is, until so many epochs are behind them: every epoch's metrics, by name.

        Called again after this process died, it goes on from what the board keeps. `shared`: a list of one reference
        to images and teacher, which are fetched once. (Of references in a constructor Ray warns, on the terminal.)
        """
        if self.inputs is None:
            self.inputs = ray.get(shared[0])
        cohort = Cohort(list(tasks.values()), self.inputs, WorkerContext(pick_device()))
        self.division = self.division or cohort.division(self.share.cpus, self.share.loader_workers)
        cohort.use(self.division)  # one cohort is as the next
        train_until(epochs, cohort, tasks, board)
        return {place: cohort.learners[task.name].history for place, task in tasks.items()}


def train_until(
    epochs: int,
    cohort: Cohort,
    tasks: Tasks,
    board: Any,
    on_keep: Callable[[dict[str, int]], object] = lambda metrics: None,
) -> None:
    """Trains a cohort from what the board keeps of it until so many epochs are behind all, and tells the board.

    Every worker of the cohort calls it; `on_keep` is called on each after states were kept. `tasks`: by their names on
    the board.
    """
    places, first = {task.name: place for place, task in tasks.items()}, cohort.worker.rank == 0
    stored: Mapping[str, bytes] = ray.get(board.states.remote(list(tasks)))
    device = cohort.worker.device
    cohort.load_state_dict({tasks[place].name: from_bytes(state, device) for place, state in stored.items()})

    def tell(metrics: Mapping[str, Metrics]) -> None:
        if first:
            ray.get(board.post.remote({places[name]: epoch for name, epoch in metrics.items()}))
            for name, epoch in metrics.items():
                record_epoch(name, epoch)

    def keep() -> None:
        if first:
            states = cohort.state_dict().items()
            ray.get(board.keep.remote({places[name]: to_bytes(state) for name, state in states}))
        on_keep({"epoch": cohort.epoch})

    cohort.train_until(epochs, tell, keep)
