"""Short trainings on frozen stages, on all cores of this machine, and how they are compared: image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tvt_ray.data.transforms import eval_loader
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.planning.facts import steps_per_epoch
from tvt_ray.training.learner import WorkerContext
from tvt_ray.training.memory import release_freed_memory
from tvt_ray.training.pace import device_here
from tvt_ray.verbs.session import Session
from tvt_ray.vits import Arch

NUM_VIEWS, NUM_STEPS = 3, 200  # of each training
NUM_IMAGES = 500  # that are learned from, at most
SURE = 1.0  # standard errors by which another has to be better than the one that is there
TEMPERATURES = np.exp(np.linspace(-1.5, 1.5, 31))
Scores: TypeAlias = NDArray[np.float64]  # (images,): more is better
Likelihoods: TypeAlias = Scores  # of each one's label, in logarithms

Key = TypeVar("Key")


def short_task(session: Session, settings: DistillSettings, arch: Arch, name: str, num_steps: int) -> DistillTask:
    """A training of so many steps, all of them with frozen stages."""
    num_images = min(len(session.data.train), NUM_IMAGES)
    epochs = max(NUM_VIEWS, round(num_steps / steps_per_epoch(num_images, settings.batch_size)))
    lengths: Mapping[str, Any] = {
        "epochs": epochs,
        "stem_frozen_epochs": epochs,
        "num_views": NUM_VIEWS,
        "warmup_epochs": max(1, epochs // 10),
        "learn_from": "train",
    }
    config, num_classes = session.config, session.data.num_classes
    return DistillTask(config.space, arch, num_classes, settings.with_(lengths), config.plugins, name)


def train_shortly(session: Session, tasks: Sequence[DistillTask]) -> tuple[dict[str, Tensor], Tensor]:
    """Logits (images, classes) of the images that validate, by task, and their labels (images,)."""
    data, seed = session.data, tasks[0].settings.seed
    places = np.random.default_rng(seed).permutation(len(data.train))[:NUM_IMAGES]
    device = device_here()
    inputs = DistillInputs(data.train.take(np.sort(places)), data.val, data.test, session.teacher)
    cohort = Cohort(tasks, inputs, WorkerContext(device))
    while not cohort.done:
        cohort.run_epoch()
    images, labels = map(torch.cat, zip(*eval_loader(data.val, cohort.image_size), strict=True))
    with torch.inference_mode():
        logits = {
            name: torch.cat([learner.kept()(part.to(device)).cpu() for part in torch.split(images, 64)])
            for name, learner in cohort.learners.items()
        }
    session.teacher.cpu()
    del cohort
    release_freed_memory()
    return logits, labels


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """Percent."""
    return 100 * float((logits.argmax(1) == labels).float().mean())


def middle_arch(session: Session) -> Arch:
    """Of those within the budget, the one whose parameters are their median."""
    space, limits = session.config.space, session.limits
    within = [arch for arch in space.enumerate() if limits.admit(arch)]
    within.sort(key=lambda arch: (space.cost(arch, session.data.num_classes).params, space.arch_id(arch)))
    return within[len(within) // 2]


def likelihoods(logits: Tensor, labels: Tensor) -> Likelihoods:
    """Of each image's label, in logarithms, at the one temperature of all that makes their mean largest: (images,).

    So losses that leave a network more or less sure of itself can be compared.
    """
    return _at_best([-F.cross_entropy(logits.double() / t, labels, reduction="none") for t in TEMPERATURES])


def quadratic(logits: Tensor, labels: Tensor) -> Scores:
    """Of each image 2 p - sum p^2 (Brier 1950, turned so that more is better), p its label's probability: (images,).

    At the best temperature, as likelihoods are. It is bounded, so that of few images no single one decides.
    """
    shares = [(logits.double() / t).softmax(1) for t in TEMPERATURES]
    return _at_best([2 * each.gather(1, labels[:, None])[:, 0] - (each**2).sum(1) for each in shares])


def _at_best(each: Sequence[Tensor]) -> NDArray[np.float64]:
    """What one temperature gives, the one whose mean is largest."""
    best: NDArray[np.float64] = max(each, key=lambda values: float(values.mean())).numpy()
    return best


def behind(best: Scores, other: Scores) -> float:
    """What one is behind the other, in standard errors of the mean difference over the same images."""
    difference = best - other
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return float(difference.mean() / error) if error > 0 else 0.0


def pick(found: Mapping[Key, Scores]) -> Key:
    """The first, unless another is surely better than it: then the best of those."""
    first = next(iter(found))
    better = [key for key in found if behind(found[key], found[first]) >= SURE]
    return max([first, *better], key=lambda key: float(found[key].mean()))
