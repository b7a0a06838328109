"""Making ground truth: sampled architectures, each distilled with one short, fixed recipe, several at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.storage.locations import write_atomically
from tvt_ray.training.learner import WorkerContext
from tvt_ray.training.states import from_bytes, to_bytes
from tvt_ray.vits import Arch, Space


def sample_archs(space: Space, count: int, seed: int) -> list[Arch]:
    """`count` different architectures, drawn as the space draws them; the first k of a larger sample are the same.

    Raises ValueError when the space has fewer.
    """
    if count > space.size():
        raise ValueError(f"the space has {space.size():,} architectures, {count:,} were asked for")
    rng, archs = random.Random(f"ground truth/{seed}"), dict[str, Arch]()
    while len(archs) < count:
        arch = space.sample(rng)
        archs.setdefault(space.arch_id(arch), arch)
    return list(archs.values())


def train_cohort(
    tasks: Sequence[DistillTask],
    inputs: DistillInputs,
    state_file: Path,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] = lambda images: None,
) -> dict[str, float]:
    """Test accuracy in percent by architecture, at the end of the recipe: no epoch is chosen, so none is favoured.

    The state after each epoch is kept in `state_file`, from which an interrupted call goes on.
    """
    cohort = Cohort(tasks, inputs, WorkerContext(torch.device(device)))
    if state_file.exists():
        cohort.load_state_dict(from_bytes(state_file.read_bytes(), device))
    while not cohort.done:
        cohort.run_epoch(on_batch)
        write_atomically(state_file, to_bytes(cohort.state_dict()))
    return cohort.accuracies({name: each.student for name, each in cohort.learners.items()}, inputs.test)


def ground_truth_line(task: DistillTask, column: str, accuracy: float) -> dict[str, Any]:
    """One line of a ground-truth file, as `tvt rank` reads it."""
    return {
        "space": task.space.name,
        "arch": task.space.to_json(task.arch),
        "params": task.space.cost(task.arch, task.num_classes).params,
        column: round(accuracy, 4),
    }
