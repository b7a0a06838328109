"""How students learn best on a dataset, compared by short trainings before the long one: augmentation, loss, then
rate, decay and start.

"Tune it or don't use it" (Brigato et al. 2022, https://arxiv.org/abs/2203.01881): on small datasets what is chosen by
validation is worth more than what is new. Stages stay frozen here, so that a training takes seconds.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tvt_ray.data.transforms import eval_loader
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.planning.facts import steps_per_epoch
from tvt_ray.progress import Meter, say
from tvt_ray.storage.locations import write_atomically
from tvt_ray.strict import merged, parse_json
from tvt_ray.teachers.training import TeacherTrainer, taught, trains_whole
from tvt_ray.training.pace import device_here
from tvt_ray.verbs.report import CHOICES_FILE
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.short import (
    NUM_STEPS,
    SURE,
    Scores,
    accuracy_of,
    behind,
    likelihoods,
    middle_arch,
    pick,
    quadratic,
    short_task,
    train_shortly,
)
from tvt_ray.verbs.trainings import guided_or_not
from tvt_ray.vits.starts import takes_sine

PLANNED = "as planned"
# What is compared: augmentations, each one change of what is planned, which comes first; losses; and other settings.
AUGMENTATIONS: dict[str, Mapping[str, Any]] = {
    PLANNED: {},
    "no flips": {"hflip": 0.0},
    "gentle": {"auto_augment": None, "random_erasing": 0.0, "scale": [0.5, 1.0]},
}
LOSSES: dict[str, Mapping[str, float]] = {
    "labels, logits and features": {"cross_entropy": 1.0, "logits": 1.0, "features": 4.0, "guidance": 0.0},
    "labels and logits": {"cross_entropy": 1.0, "logits": 1.0, "features": 0.0, "guidance": 0.0},
    "labels": {"cross_entropy": 1.0, "logits": 0.0, "features": 0.0, "guidance": 0.0},
}
TEACHER_STEPS = 120  # of a teacher's short training
PATIENCE = 3  # times the seconds that are planned, in which an augmentation is begun: which are tried decides much
RATES = {"half the learning rate": 0.5, "twice the learning rate": 2.0}
OTHERS: dict[str, Mapping[str, Any]] = {
    "weight decay 0.3": {"weight_decay": 0.3},
    "mimetic attention, sine positions": {"start": "mimetic", "positions": "sine"},
    "impulse attention, sine positions": {"start": "impulse", "positions": "sine"},
    "conditioned attention": {"start": "conditioned"},
}


@dataclass(frozen=True)
class Way:
    """One way to learn, and what came of it on validation."""

    augmentation: str
    loss: str
    val_acc: float  # percent
    log_likelihood: float  # mean over the images that validate, at the temperature that suits them best
    behind: float  # what it is behind the best one, in standard errors of the difference
    setting: str = PLANNED  # rate, decay or start, in words


@dataclass(frozen=True)
class Choices:
    """What was compared, best first, and the changes of `distill` that were chosen."""

    ways: tuple[Way, ...]
    augmentation: str  # in words
    loss: str
    chosen: Mapping[str, Any]
    seconds: float
    setting: str = PLANNED

    def sentence(self) -> str:
        """What was chosen, beside what was planned."""
        rest = "" if self.setting == PLANNED else f", {self.setting}"
        return (
            f"choices: augmentation {self.augmentation!r}, loss by {self.loss}{rest}, of {len(self.ways)} ways to "
            f"learn that were tried in {self.seconds:.0f} s"
        )


def choose(session: Session, seconds: float, given: Collection[str] = ()) -> Choices | None:
    """Compares ways to learn for about so many seconds and changes the session's config by what won.

    `given`: settings of `distill` that the user set; of those, augment and loss stay. Found in the run folder where it
    was done before. None where nothing was compared, for want of time.
    """
    if (before := _made_before(session)) is not None:
        return before
    choices = compare_ways(session, seconds, given)
    return choices and _made(session, choices, {"distill": choices.chosen})


def _made_before(session: Session) -> Choices | None:
    file = session.folder.path / CHOICES_FILE
    if not file.is_file():
        return None
    stored = parse_json(file.read_text())
    return Choices(**{**stored, "ways": tuple(Way(**way) for way in stored["ways"])})


def _made(session: Session, choices: Choices, changes: Mapping[str, Any]) -> Choices:
    """They become the session's and the run's, and are kept and said."""
    session.config = session.config.with_(changes)
    write_atomically(session.folder.path / CHOICES_FILE, json.dumps(asdict(choices), indent=1).encode())
    session.folder.claim(session.config)
    say(choices.sentence())
    return choices


def choose_augmentation(session: Session, given: Collection[str] = ()) -> Choices | None:
    """Where teacher and students begin with drawn weights: the augmentation of both, by short trainings of the teacher,
    which is smaller. `given` as in `choose`. None where the augmentation was set, or the teacher needs no training.
    """
    config = session.config
    if "augment" in given or not trains_whole(config.teacher, config.teacher_training):
        return None
    if (before := _made_before(session)) is not None:
        return before
    start, planned = time.monotonic(), config.distill.augment.model_dump(mode="json")
    found, ways = dict[Key, Scores](), dict[Key, Way]()
    with Meter("choosing how to learn", len(AUGMENTATIONS), "augmentations") as meter:
        for name, change in AUGMENTATIONS.items():
            logits, labels = _teach_shortly(session, merged(planned, change))
            key = (name, "labels", PLANNED)
            found[key], ways[key] = quadratic(logits, labels), way_of(key, logits, labels)
            meter.advance(1)
    decided = decide(found)
    augment = merged(planned, *(AUGMENTATIONS[name] for name in decided.augmentations))
    choices = _told(found, ways, decided, {"augment": augment}, start)
    teaching = {"augment": {**augment, "auto_augment": None}}
    return _made(session, choices, {"distill": choices.chosen, "teacher_training": teaching})


def _teach_shortly(session: Session, augment: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits (images, classes) of the images that validate, by a teacher that learned for some steps; their labels."""
    config, data = session.config, session.data
    training = config.teacher_training
    epochs = max(1, round(TEACHER_STEPS / steps_per_epoch(len(data.train), training.batch_size)))
    training = training.with_(augment={**augment, "auto_augment": None}, epochs=epochs, min_steps=0)
    teacher, _ = taught(TeacherTrainer(config.teacher, training, data, device_here()))
    images, labels = map(torch.cat, zip(*eval_loader(data.val, teacher.image_size), strict=True))
    with torch.inference_mode():
        parts = [teacher.to(device_here())(part.to(device_here()))[0].cpu() for part in torch.split(images, 64)]
    return torch.cat(parts), labels


def way_of(key: Key, logits: Tensor, labels: Tensor) -> Way:
    """What came of a short training, but for what it is behind others."""
    augmentation, loss, setting = key
    likelihood = float(likelihoods(logits, labels).mean())
    return Way(augmentation, loss, accuracy_of(logits, labels), likelihood, 0.0, setting)


def _told(
    found: Mapping[Key, Scores], ways: Mapping[Key, Way], decided: Decided, chosen: Mapping[str, Any], start: float
) -> Choices:
    """Ways, the best first, with what was chosen in words and as settings."""
    in_order = sorted(found, key=lambda key: -float(found[key].mean()))
    best = found[in_order[0]]
    told = tuple(dataclasses.replace(ways[key], behind=behind(best, found[key])) for key in in_order)
    said, seconds = " and ".join(decided.augmentations) or PLANNED, round(time.monotonic() - start, 1)
    return Choices(told, said, decided.loss, chosen, seconds, decided.setting)


def compare_ways(session: Session, seconds: float, given: Collection[str] = ()) -> Choices | None:
    """Trains each way shortly, on all cores of this machine: augmentations with each loss, as many as end within
    PATIENCE times the seconds, then other settings, where there is time for all of those.
    """
    config, start = session.config, time.monotonic()
    settings = guided_or_not(config.distill, session.verdict, session.teacher.name)
    losses = LOSSES if settings.loss.follow_teacher else {"labels": LOSSES["labels"]}
    if "loss" in given:
        losses = {"as given": settings.loss.weights}
    arch, planned = middle_arch(session), settings.augment.model_dump(mode="json")
    changes = {"as given": {}} if "augment" in given else AUGMENTATIONS
    augmentations = {name: merged(planned, change) for name, change in changes.items()}
    found, ways, longest = dict[Key, Scores](), dict[Key, Way](), 0.0

    def train(augmentation: str, tried: Mapping[tuple[str, str], DistillSettings]) -> None:
        """Of names of losses and of other settings, each with what it sets."""
        tasks = [short_task(session, each, arch, "/".join(names), NUM_STEPS) for names, each in tried.items()]
        logits, labels = train_shortly(session, tasks)
        for loss, setting in tried:
            each, key = logits[f"{loss}/{setting}"], (augmentation, loss, setting)
            found[key], ways[key] = quadratic(each, labels), way_of(key, each, labels)

    with Meter("choosing how to learn", len(augmentations) + 1, "comparisons") as meter:
        for name, augment in augmentations.items():
            began = time.monotonic()
            if found and began - start + longest > PATIENCE * seconds:
                break
            of_augmentation = settings.with_(augment=augment)
            train(name, {(loss, PLANNED): of_augmentation.with_(loss={"weights": w}) for loss, w in losses.items()})
            longest = max(longest, time.monotonic() - began)
            meter.advance(1)
        first, (loss, weights) = next(iter(augmentations)), next(iter(losses.items()))
        others = other(settings, given, takes_sine(getattr(config.space, "embed_dim", [1])))
        if others and time.monotonic() - start + longest * len(others) / len(losses) < seconds:
            of_loss = settings.with_(loss={"weights": weights})
            train(first, {(loss, name): of_loss.with_(change) for name, change in others.items()})
            meter.advance(1)
    if len(found) < 2:
        return None
    decided = decide(found)
    augment = merged(planned, *(changes[name] for name in decided.augmentations))
    chosen = {"augment": augment, "loss": {"weights": dict(losses[decided.loss])}, **others.get(decided.setting, {})}
    return _told(found, ways, decided, chosen, start)


Key: TypeAlias = tuple[str, str, str]  # augmentation, loss, setting


def other(settings: DistillSettings, given: Collection[str], sine: bool = True) -> dict[str, Mapping[str, Any]]:
    """Rates, decay and starts beside those that are planned, in words and as settings, unless somebody set those.

    `sine`: whether students can have such positions.
    """
    given = {*given, *(() if sine else ("positions",))}
    rates = {name: {"lr": factor * settings.lr, "min_lr": factor * settings.min_lr} for name, factor in RATES.items()}
    return {name: change for name, change in {**rates, **OTHERS}.items() if not change.keys() & given}


class Decided(NamedTuple):
    """Changes of the augmentation that are surely better than what is planned, a loss, and a rate, decay or start."""

    augmentations: tuple[str, ...]
    loss: str
    setting: str


def decide(found: Mapping[Key, Scores]) -> Decided:
    """Each change of the augmentation by itself, over all losses; the loss, over all augmentations: the first unless
    surely worse; and of other settings the planned ones, unless others are surely better.
    """
    (planned, first_loss, _), *_ = found
    plain = {key: values for key, values in found.items() if key[2] == PLANNED}

    def mean_of(part: int, name: str) -> Scores:
        of_name = [values for key, values in plain.items() if key[part] == name]
        return np.mean(of_name, axis=0)  # type: ignore[no-any-return]

    changes, losses = (dict.fromkeys(key[part] for key in plain) for part in (0, 1))
    first = mean_of(0, planned)
    better = tuple(name for name in changes if name != planned and behind(mean_of(0, name), first) >= SURE)
    settings = {setting: found[planned, first_loss, setting] for *way, setting in found if way == [planned, first_loss]}
    return Decided(better, pick({name: mean_of(1, name) for name in losses}), pick(settings))
