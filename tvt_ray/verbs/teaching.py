"""What all trainings of a run share: images, teacher, and the recipe by which students learn from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tvt_ray.data.splits import Dataset
from tvt_ray.distillation.cohort import DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.progress import say
from tvt_ray.refining.learned import Measurement
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.rows import Row
from tvt_ray.teachers.timm_cnn import PREFIX
from tvt_ray.teachers.training import Verdict
from tvt_ray.verbs.session import Session
from tvt_ray.vits.weight_source import Source

DWARFS = 10


class Teaching:
    """What students of a session learn from: images, teacher and whether it is followed, weights to begin with."""

    def __init__(self, session: Session) -> None:
        """Trains the teacher where there is none."""
        config, self.data, self.teacher = session.config, session.data, session.teacher
        self.config, self._named = config, session.init
        self.init = None if session.init is None else session.init.of_classes(self.data.class_names)
        self.settings = guided_or_not(config.distill, session.verdict, self.teacher.name)
        self.begun_with = settings_of(config.distill, session.init)
        self._recipes = dict[tuple[bool, bool], str]()
        self.imbalance_told = False

    def _recipe(self, alone: bool, drawn: bool) -> str:
        """Of who learns without the teacher, of who begins with what is drawn, both or neither: hashed when asked for,
        since each reads the dataset's fingerprint.
        """
        if (alone, drawn) not in self._recipes:
            changes = {**({"guided": "never"} if alone else {}), **({"init": None} if drawn else {})}
            config = self.config.with_(distill=changes)
            self._recipes[alone, drawn] = recipe_of(config, self.data, None if drawn else self._named)
        return self._recipes[alone, drawn]

    @property
    def recipe(self) -> str:
        """By which the config has its students learn."""
        return self._recipe(alone=False, drawn=False)

    def inputs(self) -> DistillInputs:
        """As workers on other machines need them."""
        data = self.data
        return DistillInputs(data.train.portable(), data.val.portable(), data.test.portable(), self.teacher, self.init)

    def task(self, row: Row, seed: int | None = None) -> DistillTask:
        """A row's training, by the settings' seed or another."""
        space, settings = self.config.space, self.settings
        if seed is not None:
            settings = settings.with_(seed=seed)
        return DistillTask(space, space.from_json(row.arch), self.data.num_classes, settings, self.config.plugins)

    @property
    def guided(self) -> bool:
        """Whether students follow the teacher, unless they are told not to."""
        return self.settings.loss.follow_teacher

    def measurement(self, task: DistillTask, epoch: Mapping[str, float]) -> Measurement:
        """What an epoch of a student says."""
        epochs, seed = int(epoch["epoch"]), task.settings.seed
        return Measurement(task.arch_id, epochs, seed, epoch["val_acc"], epoch["seconds"], self.recipe_for(task))

    def recipe_for(self, task: DistillTask) -> str:
        """As the settings say, or of who learns alone where others follow, or begins with what is drawn."""
        alone, drawn = task.settings.loss != self.settings.loss, task.settings.init != self.settings.init
        return self._recipe(alone, drawn)

    def told_recipe(self, task: DistillTask) -> Mapping[str, Any]:
        """Its settings without places: of weights to begin with that lie on a disk, what identifies them."""
        settings = task.settings.model_dump(mode="json")
        lies_somewhere = task.settings.init is not None and not task.settings.init.startswith(PREFIX)
        return {**settings, "init": self.begun_with["init"]} if lies_somewhere else settings

    def tell_of_imbalance(self, epoch: Mapping[str, float]) -> None:
        """Once, where the weighted guidance is many times the cross-entropy, which then teaches little."""
        loss = self.settings.loss
        both = loss.terms.keys() & epoch.keys() & {"guidance", "cross_entropy"}  # who learns alone has no guidance
        if self.imbalance_told or loss.guidance_limit or len(both) < 2:
            return
        guidance, entropy = (loss.terms[name] * epoch[name] for name in ("guidance", "cross_entropy"))
        if guidance > DWARFS * entropy:
            self.imbalance_told = True
            say(
                f"guidance is {guidance:.3g} beside a cross-entropy of {entropy:.3g}, and dwarfs it: "
                "distill.loss.guidance_limit=1 would bound it"
            )


def guided_or_not(settings: DistillSettings, verdict: Verdict, name: str) -> DistillSettings:
    """The settings without the terms that follow the teacher, where they say so or the teacher is not worth it."""
    if settings.guided == "never":
        return settings.with_(loss=settings.loss.alone())
    if verdict.worth_following or not settings.loss.follow_teacher:
        return settings
    if settings.guided == "always":
        say(f"teacher: {name} is followed, though {verdict.sentence()}")
        return settings
    say(
        f"teacher: {name} is not followed: {verdict.sentence()}; students learn from labels alone "
        "(distill.guided=always follows it, a better one comes with --teacher-weights or longer teacher_training)"
    )
    return settings.with_(loss=settings.loss.alone())


def recipe_of(config: RunConfig, data: Dataset, init: Source | None = None) -> str:
    """A hash of all that a student's accuracy depends on beside architecture and seed: recipe, teacher and data.

    `init`: the weights that students begin with, which count by their content.
    """
    sections = config.model_dump(mode="json", include={"teacher", "teacher_training"})
    sections["distill"] = settings_of(config.distill, init)
    if init is None:
        del sections["distill"]["init"]  # hashes from before there was this setting stay what they were
    del sections["distill"]["seed"]  # which stands in each measurement
    text = json.dumps({**sections, "fingerprint": data.fingerprint()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def settings_of(settings: DistillSettings, init: Source | None) -> dict[str, Any]:
    """The settings as JSON, where `init` is what was read, not where from: two places of one content are the same."""
    named = {} if init is None else {"init": f"weights {init.digest}"}
    return {**settings.model_dump(mode="json"), **named}
