"""How students learn best on a dataset: augmentation and loss, compared by short trainings before the long one.

"Tune it or don't use it" (Brigato et al. 2022, https://arxiv.org/abs/2203.01881): on small datasets what is chosen by
validation is worth more than what is new. Stages stay frozen here, so that a training takes seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from tvt_ray.progress import Meter, say
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.strict import merged
from tvt_ray.verbs.report import CHOICES_FILE
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.short import (
    NUM_STEPS,
    SURE,
    Likelihoods,
    accuracy_of,
    behind,
    likelihoods,
    middle_arch,
    pick,
    short_task,
    train_shortly,
)
from tvt_ray.verbs.trainings import guided_or_not

# What is compared: augmentations, each one change of what is planned, which comes first; and losses.
AUGMENTATIONS: dict[str, Mapping[str, Any]] = {
    "as planned": {},
    "no flips": {"hflip": 0.0},
    "gentle": {"auto_augment": None, "random_erasing": 0.0, "scale": [0.5, 1.0]},
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
    behind: float  # what it is behind the best one, in standard errors of the difference


@dataclass(frozen=True)
class Choices:
    """What was compared, best first, and the changes of `distill` that were chosen."""

    ways: tuple[Way, ...]
    augmentation: str  # in words
    loss: str
    chosen: Mapping[str, Any]
    seconds: float

    def sentence(self) -> str:
        """What was chosen, beside what was planned."""
        return (
            f"choices: augmentation {self.augmentation!r}, loss by {self.loss}, of {len(self.ways)} ways to learn that "
            f"were tried in {self.seconds:.0f} s"
        )


def choose(session: Session, seconds: float, given: Collection[str] = ()) -> Choices | None:
    """Compares ways to learn for about so many seconds and changes the session's config by what won.

    `given`: settings of `distill` that the user set; of those, augment and loss stay. Found in the run folder where it
    was done before. None where nothing was compared, for want of time.
    """
    file = session.folder.path / CHOICES_FILE
    if file.is_file():
        stored = json.loads(file.read_text())
        return Choices(**{**stored, "ways": tuple(Way(**way) for way in stored["ways"])})
    choices = compare_ways(session, seconds, given)
    if choices is None:
        return None
    session.config = session.config.with_(distill=choices.chosen)
    _keep(file, choices)
    session.folder.claim(session.config)
    say(choices.sentence())
    return choices


def _keep(file: Location, choices: Choices) -> None:
    write_atomically(file, json.dumps(asdict(choices), indent=1).encode())


def compare_ways(session: Session, seconds: float, given: Collection[str] = ()) -> Choices | None:
    """Trains each way shortly, on all cores of this machine, for as long as there is time for another augmentation."""
    config, start = session.config, time.monotonic()
    settings = guided_or_not(config.distill, session.verdict, session.teacher.name)
    losses = LOSSES if settings.loss.follow_teacher else {"labels": LOSSES["labels"]}
    if "loss" in given:
        losses = {"as given": settings.loss.weights}
    arch, planned = middle_arch(session), settings.augment.model_dump(mode="json")
    changes = {"as given": {}} if "augment" in given else AUGMENTATIONS
    augmentations = {name: merged(planned, change) for name, change in changes.items()}
    found, hits, longest = dict[tuple[str, str], Likelihoods](), dict[tuple[str, str], float](), 0.0
    with Meter("choosing how to learn", len(augmentations), "augmentations") as meter:
        for name, augment in augmentations.items():
            began = time.monotonic()
            if found and began - start + longest > seconds:
                break
            tasks = [
                short_task(session, settings.with_(augment=augment, loss={"weights": weights}), arch, loss, NUM_STEPS)
                for loss, weights in losses.items()
            ]
            logits, labels = train_shortly(session, tasks)
            for loss, each in logits.items():
                found[name, loss], hits[name, loss] = likelihoods(each, labels), accuracy_of(each, labels)
            longest = max(longest, time.monotonic() - began)
            meter.advance(1)
    if len(found) < 2:
        return None
    names, best = decide(found), max(found, key=lambda way: float(found[way].mean()))
    ways = [Way(*way, hits[way], float(values.mean()), behind(found[best], values)) for way, values in found.items()]
    ways.sort(key=lambda way: -way.log_likelihood)
    augment = merged(planned, *(changes[name] for name in names.augmentations))
    chosen = {"augment": augment, "loss": {"weights": dict(losses[names.loss])}}
    said = " and ".join(names.augmentations) or "as planned"
    return Choices(tuple(ways), said, names.loss, chosen, round(time.monotonic() - start, 1))


class Decided(NamedTuple):
    """Changes of the augmentation that are surely better than what is planned, and a loss."""

    augmentations: tuple[str, ...]
    loss: str


def decide(found: Mapping[tuple[str, str], Likelihoods]) -> Decided:
    """Each change by itself, over all losses; then the loss, over all augmentations: the first unless surely worse."""

    def mean_of(part: int, name: str) -> Likelihoods:
        of_name = [values for way, values in found.items() if way[part] == name]
        return np.mean(of_name, axis=0)  # type: ignore[no-any-return]

    planned, *others = dict.fromkeys(augmentation for augmentation, _ in found)
    first = mean_of(0, planned)
    better = tuple(name for name in others if behind(mean_of(0, name), first) >= SURE)
    losses = dict.fromkeys(loss for _, loss in found)
    return Decided(better, pick({name: mean_of(1, name) for name in losses}))
