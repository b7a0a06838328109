"""What a worker does with a cohort, in a Train job or in an actor of its own; that actor.

Nothing of Ray Train is imported here, for which an actor would wait half a second each time that one begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch

from tvt_ray.cluster.metrics import record_epoch
from tvt_ray.cluster.slots import Allotment, pick_device
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask, WorkerContext
from tvt_ray.distillation.pace import measure
from tvt_ray.plugins import load_plugins
from tvt_ray.training.pace import Division, divide
from tvt_ray.training.states import from_bytes, to_bytes
from tvt_ray.vision_compat import ensure_torchvision

SECONDS_BETWEEN_STATES = 10.0  # at least, so that short epochs are not spent on writing


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
        self.inputs: DistillInputs | None = None
        self.share, self.divided = share, False

    def ready(self) -> None:
        """Returns when this process has begun."""

    def train(
        self, shared: Sequence[Any], board: Any, tasks: Sequence[DistillTask], epochs: int
    ) -> dict[str, list[dict[str, float]]]:
        """Trains them, from where each is, until so many epochs are behind them: every epoch's metrics, by name.

        Called again after this process died, it goes on from what the board keeps. `shared`: a list of one reference
        to images and teacher, which are fetched once. (Of references in a constructor Ray warns, on the terminal.)
        """
        if self.inputs is None:
            self.inputs = ray.get(shared[0])
        cohort = Cohort(tasks, self.inputs, WorkerContext(pick_device()))
        names = {task.name: state_name(task) for task in tasks}
        cohort.load_state_dict(read_states(board, names, cohort.worker.device))
        self._divide(cohort)
        train_until(cohort, epochs, board, names)
        return {names[own]: learner.history for own, learner in cohort.learners.items()}

    def _divide(self, cohort: Cohort) -> None:
        """A single core is not divided; others are once, since one cohort is as the next."""
        if self.share.cpus > 1 and not self.divided:
            self.divided = True
            divide_cpus(cohort, self.share)


def divide_cpus(cohort: Cohort, share: Allotment) -> None:
    """Between loading and computing: as the settings say, else as measured here.

    Ray may count more CPUs than there are, whose threads would wait for each other.
    """
    cpus = min(share.cpus, os.cpu_count() or 1)
    if share.loader_workers is None:
        division = divide(cpus, measure(cohort, cpus))
    else:
        division = Division(share.loader_workers, max(1, cpus - share.loader_workers))
    torch.set_num_threads(division.threads)
    cohort.load_with(division.loader_workers)


def read_states(board: Any, names: Mapping[str, str], device: torch.device) -> dict[str, Any]:
    """What the board keeps of some students, by the cohort's names. `names`: of each there, by that in the cohort."""
    stored: Mapping[str, bytes] = ray.get(board.states.remote(list(names.values())))
    return {own: from_bytes(stored[name], device) for own, name in names.items() if name in stored}


def train_until(
    cohort: Cohort,
    epochs: int,
    board: Any,
    names: Mapping[str, str],
    on_epoch: Callable[[dict[str, int]], None] = lambda metrics: None,
) -> None:
    """Trains all of a cohort until so many epochs are behind them, and tells the board. `names` as in `read_states`.

    Every worker of the cohort calls it; `on_epoch` is called after each epoch, on each.
    """
    kept = time.monotonic()
    while cohort.epoch < epochs:
        metrics = cohort.run_epoch()
        if cohort.worker.rank == 0:
            ray.get(board.post.remote({names[own]: epoch for own, epoch in metrics.items()}))
            for own, epoch in metrics.items():
                record_epoch(own, epoch)
            if cohort.epoch >= epochs or time.monotonic() - kept >= SECONDS_BETWEEN_STATES:
                states = cohort.state_dict().items()
                ray.get(board.keep.remote({names[own]: to_bytes(state) for own, state in states}))
                kept = time.monotonic()
        on_epoch({"epoch": cohort.epoch})
