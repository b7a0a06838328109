"""How students learn best on a dataset: augmentation and loss, compared by short trainings before the long one.

"Tune it or don't use it" (Brigato et al. 2022, https://arxiv.org/abs/2203.01881): on small datasets what is chosen by
validation is worth more than what is new. Stages stay frozen here, so that a training takes seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
from tvt_ray.progress import Meter, say
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.strict import merged
from tvt_ray.training.learner import WorkerContext
from tvt_ray.verbs.report import CHOICES_FILE
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.trainings import guided_or_not
from tvt_ray.vits import Arch

NUM_VIEWS, NUM_STEPS = 3, 200  # of each training
NUM_IMAGES = 500  # that are learned from, at most
SURE = 1.0  # standard errors by which another way has to be better than the one that is there
TEMPERATURES = np.exp(np.linspace(-1.5, 1.5, 31))

# What is compared, each a change of `distill` beside what is there, which comes first.
AUGMENTATIONS: dict[str, Mapping[str, Any]] = {
    "as planned": {},
    "no flips": {"hflip": 0.0},
    "gentle": {"auto_augment": None, "random_erasing": 0.0, "scale": [0.5, 1.0]},
    "gentle, no flips": {"auto_augment": None, "random_erasing": 0.0, "scale": [0.5, 1.0], "hflip": 0.0},
}
LOSSES: dict[str, Mapping[str, float]] = {
    "labels, logits and features": {"cross_entropy": 1.0, "logits": 1.0, "features": 4.0, "guidance": 0.0},
    "labels and logits": {"cross_entropy": 1.0, "logits": 1.0, "features": 0.0, "guidance": 0.0},
    "labels": {"cross_entropy": 1.0, "logits": 0.0, "features": 0.0, "guidance": 0.0},
}


@dataclass(frozen=True)
class Way:
    """One way to learn, and what came of it on validation."""

    augmentation: str
    loss: str
    val_acc: float  # percent
    log_likelihood: float  # mean over the images that validate, at the temperature that suits them best
    behind: float  # what it is behind the chosen one, in standard errors of the difference; 0: it is the chosen one


@dataclass(frozen=True)
class Choices:
    """What was compared, best first, and the changes of `distill` that were chosen."""

    ways: tuple[Way, ...]
    chosen: Mapping[str, Any]
    seconds: float

    def sentence(self) -> str:
        """What was chosen, beside what was planned."""
        best = self.ways[0]
        return (
            f"choices: augmentation {best.augmentation!r}, loss by {best.loss}: {best.val_acc:.1f} % on validation, of "
            f"{len(self.ways)} ways to learn that were tried in {self.seconds:.0f} s"
        )


def choose(session: Session, seconds: float) -> Choices | None:
    """Compares ways to learn for about so many seconds and changes the session's config by what won.

    Found in the run folder where it was done before. None where nothing was compared, for want of time.
    """
    file = session.folder.path / CHOICES_FILE
    if file.is_file():
        stored = json.loads(file.read_text())
        return Choices(tuple(Way(**way) for way in stored["ways"]), stored["chosen"], stored["seconds"])
    choices = compare_ways(session, seconds)
    if choices is None:
        return None
    session.config = session.config.with_(distill=choices.chosen)
    _keep(file, choices)
    session.folder.claim(session.config)
    say(choices.sentence())
    return choices


def _keep(file: Location, choices: Choices) -> None:
    write_atomically(file, json.dumps(asdict(choices), indent=1).encode())


def compare_ways(session: Session, seconds: float) -> Choices | None:
    """Trains each way shortly, on all cores of this machine, for as long as there is time for another augmentation."""
    config, start = session.config, time.monotonic()
    settings = guided_or_not(config.distill, session.verdict, session.teacher.name)
    losses = LOSSES if settings.loss.follow_teacher else {"labels": LOSSES["labels"]}
    planned = settings.augment.model_dump(mode="json")
    augmentations = {name: merged(planned, change) for name, change in AUGMENTATIONS.items()}
    found, hits, longest = dict[tuple[str, str], NDArray[np.float64]](), dict[tuple[str, str], float](), 0.0
    with Meter("choosing how to learn", len(AUGMENTATIONS), "augmentations") as meter:
        for name, augment in augmentations.items():
            began = time.monotonic()
            if found and began - start + longest > seconds:
                break
            logits, labels = _trained(session, settings.with_(augment=augment), losses)
            for loss, each in logits.items():
                found[name, loss] = likelihoods(each, labels)
                hits[name, loss] = 100 * float((each.argmax(1) == labels).float().mean())
            longest = max(longest, time.monotonic() - began)
            meter.advance(1)
    if len(found) < 2:
        return None
    best = pick(found)
    ways = [Way(*key, hits[key], float(values.mean()), behind(found[best], values)) for key, values in found.items()]
    ways.sort(key=lambda way: ((way.augmentation, way.loss) != best, -way.log_likelihood))
    chosen = {"augment": augmentations[best[0]], "loss": {"weights": dict(LOSSES[best[1]])}}
    return Choices(tuple(ways), chosen, round(time.monotonic() - start, 1))


def _trained(
    session: Session, settings: DistillSettings, losses: Mapping[str, Mapping[str, float]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Logits (images, classes) of the images that validate, by loss, and their labels."""
    data, arch = session.data, middle_arch(session)
    rng = np.random.default_rng(settings.seed)
    some = data.train.take(np.sort(rng.permutation(len(data.train))[:NUM_IMAGES]))
    per_epoch = steps_per_epoch(len(some), settings.batch_size)
    epochs = max(NUM_VIEWS, round(NUM_STEPS / per_epoch))
    lengths = {
        "epochs": epochs,
        "stem_frozen_epochs": epochs,
        "num_views": NUM_VIEWS,
        "warmup_epochs": max(1, epochs // 10),
        "learn_from": "train",
    }
    tasks = [
        DistillTask(
            session.config.space,
            arch,
            data.num_classes,
            settings.with_(lengths, loss={"weights": dict(weights)}),
            session.config.plugins,
            loss,
        )
        for loss, weights in losses.items()
    ]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cohort = Cohort(tasks, DistillInputs(some, data.val, data.test, session.teacher), WorkerContext(device))
    while not cohort.done:
        cohort.run_epoch()
    images, labels = map(torch.cat, zip(*eval_loader(data.val, cohort.image_size), strict=True))
    with torch.inference_mode():
        logits = {
            name: torch.cat([learner.kept()(part.to(device)).cpu() for part in torch.split(images, 64)])
            for name, learner in cohort.learners.items()
        }
    session.teacher.cpu()
    return logits, labels


def middle_arch(session: Session) -> Arch:
    """Of those within the budget, the one whose parameters are their median."""
    space, limits = session.config.space, session.limits
    within = [arch for arch in space.enumerate() if limits.admit(arch)]
    within.sort(key=lambda arch: (space.cost(arch, session.data.num_classes).params, space.arch_id(arch)))
    return within[len(within) // 2]


def likelihoods(logits: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Of each image's label, in logarithms, at the one temperature of all that makes their mean largest: (images,).

    So losses that leave a network more or less sure of itself can be compared.
    """
    each = [-F.cross_entropy(logits.double() / t, labels, reduction="none").numpy() for t in TEMPERATURES]
    best: NDArray[np.float64] = max(each, key=lambda values: float(values.mean()))
    return best


def behind(best: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """What one is behind the other, in standard errors of the mean difference over the same images."""
    difference = best - other
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return float(difference.mean() / error) if error > 0 else 0.0


def pick(found: Mapping[tuple[str, str], NDArray[np.float64]]) -> tuple[str, str]:
    """The first, unless another is surely better than it: then the best of those."""
    first: tuple[str, str] = next(iter(found))
    better: Sequence[tuple[str, str]] = [key for key in found if behind(found[key], found[first]) >= SURE]
    return max([first, *better], key=lambda key: float(found[key].mean()))
