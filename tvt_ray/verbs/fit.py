"""Fit: from a folder of images to a trained student, in a time that is said beforehand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvt_ray.data.datasets import check_outside
from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import check_augmentation
from tvt_ray.errors import UsageError
from tvt_ray.planning.estimate import measure_speeds, smaller, with_students_speed
from tvt_ray.planning.facts import DataFacts, Speeds
from tvt_ray.planning.inherited import BODIES_SHARE, CHOICES_SHARE, inherits, num_learned
from tvt_ray.planning.recipe import (
    OWN,
    START_S,
    StemChoice,
    affordable,
    least_minutes,
    look_at,
    phases,
    with_epochs,
    with_lengths,
)
from tvt_ray.progress import say
from tvt_ray.quality.comparison import Rival
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import checked_limits, find_profile, load_data
from tvt_ray.runs.process import Stopwatch, process_as_it_was
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.storage.locations import Location, as_location
from tvt_ray.teachers.timm_cnn import source_of
from tvt_ray.teachers.training import trains_head, trains_whole
from tvt_ray.verbs.bodies import choose_body
from tvt_ray.verbs.choices import AUGMENTATIONS, TEACHER_STEPS, choose, choose_augmentation
from tvt_ray.verbs.compare import check_names, compare
from tvt_ray.verbs.cuts import Cut, choose_cut
from tvt_ray.verbs.distill import choose_rows, distill
from tvt_ray.verbs.init import check_init_setting
from tvt_ray.verbs.labels import report_labels
from tvt_ray.verbs.provenance import asked_of
from tvt_ray.verbs.report import write_order
from tvt_ray.verbs.rivals import Rivals, compare_with_rivals
from tvt_ray.verbs.search import search
from tvt_ray.verbs.session import Session, check_outside_world
from tvt_ray.vits.budget import format_count

MINUTES = 8.0  # where none are given and the floors fit in
LEAST_SHARE = 0.6  # of the student's planned seconds, that it has whatever came before took


@dataclass(frozen=True)
class Plan:
    """What a fit would do: what `fit --dry-run --json` prints."""

    dataset: str
    num_train: int
    num_val: int
    num_test: int
    num_classes: int
    image_size: int
    teacher: str
    teacher_epochs: int  # 0: its weights are given, or others trained them
    teacher_is_frozen: bool  # others trained it: it gets a head alone
    teacher_source: str | None  # from where its weights are, under which licence; None: trained here, or from a file
    num_samples: int
    max_flops: int | None  # of a student: those that are larger make too few steps in the time
    distill_epochs: int
    seconds: Mapping[str, float]  # by phase, as measured here

    def sentences(self) -> list[str]:
        """The plan in lines for people."""
        images = f"{self.num_train:,} train, {self.num_val:,} val, {self.num_test:,} test images"
        seconds = self.seconds
        teacher = "as given: not trained"
        if self.teacher_is_frozen:
            teacher = f"frozen, a head on its features: about {seconds['teacher']:,.0f} s"
            teacher += f"; from {self.teacher_source}" if self.teacher_source else ""
        elif self.teacher_epochs:
            teacher = f"{self.teacher_epochs} epochs: about {seconds['teacher']:,.0f} s"
        limit = f" of at most {format_count(self.max_flops)} FLOPs" if self.max_flops else ""
        return [
            f"data      {self.dataset}: {images}, {self.num_classes} classes",
            f"teacher   {self.teacher}, {teacher}",
            f"search    {self.num_samples:,} ViTs at {self.image_size} pixels{limit}: about {seconds['search']:,.0f} s",
            *([f"choices   how to learn: about {seconds['choices']:,.0f} s"] if "choices" in seconds else []),
            f"distill   the best one, {self.distill_epochs} epochs: about {seconds['distill']:,.0f} s",
            *([f"baselines by the same recipe: about {seconds['baselines']:,.0f} s"] if "baselines" in seconds else []),
            f"together  about {sum(seconds.values()) / 60:.1f} minutes",
        ]


@dataclass(frozen=True)
class Fitted:
    """What a fit gives: what `fit --json` prints."""

    students: tuple[TrainedStudent, ...]
    rivals: Rivals  # the best student beside what everyone has at hand
    out: str
    seconds: Mapping[str, float]  # that each phase took


def fit(
    dataset: str | None = None,
    *,
    out: Location | str,
    minutes: float | None = None,
    stem: StemChoice = "auto",
    baselines: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    ray_address: str | None = None,
) -> Fitted:
    """Plans, or goes on with what `out` holds; then teacher, search and distillation of the best, each where it was.

    `dataset`: a path, or a name as on the command line, unless `settings` say it, which change whatever the recipe
    has. `minutes`: that it may take; None: eight, or what the least training of teacher and student takes here. `stem`:
    auto: students begin with stages of a teacher that others trained, or from chance where none is to be had; patch:
    plain ViTs.
    `baselines`: rows of compare.BASELINES that are trained by the student's recipe too, beyond the minutes. Raises
    UsageError for what is wrong beforehand, RunError where a phase could not finish; what is done stays.
    """
    asked, clock, folder = asked_of(dataset, settings), Stopwatch(), RunFolder(as_location(out))
    check_fit(asked, folder.path, minutes, baselines, ray_address)
    planned: Planned | None = None
    with clock("plan"):
        if not folder.config_file.exists():
            planned = plan_fit(asked, minutes, stem, len(baselines))
            say("\n".join(planned.plan.sentences()))
        elif minutes is not None:
            say(f"fit: {folder.path} keeps the lengths that it was begun with; --minutes is for another --out")
        config = planned.config if planned else folder.config_for(asked).with_(asked)
    data = planned.data if planned else None
    with Session.open(config, folder.path, resume=True, ray_address=ray_address, data=data) as session:
        if planned:
            folder.make()
        else:
            folder.check(session.config, resume=True)  # before a teacher is trained
        _ = session.lock
        if planned:
            folder.claim(session.config)  # so that who goes on keeps to these lengths
        session.keep_images(compare=folder.data_file.exists())
        if begins_from_chance(session.config):
            with clock("choices"):
                choose_augmentation(session, {**asked.get("distill", {}), **asked.get("teacher_training", {})})
        with clock("teacher"):
            _ = session.teacher
            report_labels(session)
        cuts: tuple[Cut, ...] = ()
        if inherits(session.config):
            with clock("choices"):
                cuts = choose_cut(session)
                seconds = (CHOICES_SHARE - BODIES_SHARE) * 60 * (planned.minutes if planned else minutes or MINUTES)
                choose(session, seconds, asked.get("distill", {}))
        with clock("search"):
            search(session)
        body = None
        if inherits(session.config):
            with clock("choices"):
                body = next((each.arch_id for each in choose_body(session)), None)
        with clock("distill"):
            if planned and "epochs" not in asked.get("distill", {}):
                use_time_left(session, planned, body, clock.total)
            students = distill(session, arch_id=body)
        trained: Sequence[Rival] = ()
        if baselines:
            with clock("baselines"):
                trained = compare(session, baselines=baselines, arch_id=students[0].arch_id).rivals[1:]
        with clock("rivals"):
            rivals = compare_with_rivals(session, students[0], cuts, trained)
        write_order(folder, session.config, session.rows)
    return Fitted(tuple(students), rivals, str(folder.path), clock.seconds)


def use_time_left(session: Session, planned: Planned, arch_id: str | None, spent: float) -> None:
    """Sets the epochs of the student, the first of the ranking where none is named, by what its steps take now and
    what is left of the minutes after `spent` seconds: what came before may have taken less or more than was planned.

    Where it took so much more that little is left, the student has LEAST_SHARE of its planned seconds all the same:
    with a few epochs, the minutes that came before would be lost.
    """
    (row,) = choose_rows(session, arch_id=arch_id)
    arch = session.config.space.from_json(row.arch)
    speeds = with_students_speed(planned.speeds, session.config, session.data, arch)
    left, least = 60 * planned.minutes - spent - START_S - speeds.test_s, LEAST_SHARE * planned.plan.seconds["distill"]
    if left < least:
        say(f"fit: it took longer so far than was planned; the student gets {least:,.0f} s, beyond the minutes")
        left = least
    config = with_epochs(session.config, planned.facts, speeds, left)
    if config != session.config:
        session.config = config
        session.folder.claim(config)
        say(f"fit: {config.distill.epochs} epochs of the student, by the {left:,.0f} s that it has")


def begins_from_chance(config: RunConfig) -> bool:
    """Whether teacher and students of somebody's own images begin with drawn weights."""
    own = config.data.name.startswith(OWN)
    return own and not inherits(config) and trains_whole(config.teacher, config.teacher_training)


def check_fit(
    asked: Mapping[str, Any],
    out: Location,
    minutes: float | None,
    baselines: Sequence[str] = (),
    ray_address: str | None = None,
) -> None:
    """Raises UsageError, before anything is read, for a time or a baseline that is none, where no run can be put, and
    for an address at which there is no cluster.
    """
    check_names(baselines)
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"--minutes is a number above 0; got {minutes:g}")
    check_outside_world(out, ray_address)
    check_outside(out, RunConfig().with_(asked).data.name)


@dataclass(frozen=True)
class Planned:
    """A fit before it begins: its config, what to say of it, the images, decoded, and what the lengths are by."""

    config: RunConfig
    plan: Plan
    data: Dataset
    facts: DataFacts
    speeds: Speeds
    minutes: float


def plan_fit(
    asked: Mapping[str, Any], minutes: float | None = None, stem: StemChoice = "auto", num_baselines: int = 0
) -> Planned:
    """The whole config for the dataset that `asked` names, which may set anything else, and what it takes here.

    Where no minutes are given they are eight, or what the floors of teacher and student take here. Raises UsageError
    for what is wrong with the dataset or the settings, and where those that are given are too few.
    """
    looked_at = look_at(asked, stem, all_cuts=True)
    config, facts = looked_at.config, looked_at.facts
    check_augmentation(config.distill.augment)
    check_init_setting(config)
    profile = find_profile(config)
    with process_as_it_was():
        data = load_data(config, looked_at.data)
        checked_limits(config, data.num_classes, profile)
        speeds = measure_speeds(config, data)
        chosen = "epochs" in asked.get("distill", {}) or "max_flops" in asked.get("budget", {})
        if not chosen and not inherits(config):  # frozen stages teach something in any time
            config, speeds = _affordable(config, facts, data, speeds, minutes or MINUTES)
    if begins_from_chance(config):
        speeds = dataclasses.replace(speeds, choices_s=len(AUGMENTATIONS) * TEACHER_STEPS * speeds.teacher_step_s)
    minutes = max(MINUTES, least_minutes(speeds)) if minutes is None else minutes
    if inherits(config):
        speeds = dataclasses.replace(speeds, choices_s=CHOICES_SHARE * 60 * minutes)
    config = with_lengths(config, facts, speeds, minutes).with_(asked)  # who sets a length keeps it
    plan = _plan(config, facts, len(data.test), speeds, num_baselines)
    return Planned(config, plan, data, facts, speeds, minutes)


def _affordable(
    config: RunConfig, facts: DataFacts, data: Dataset, speeds: Speeds, minutes: float
) -> tuple[RunConfig, Speeds]:
    """Students that can learn something in the time, and how fast those are: a large one that makes few steps does not.

    Twice, because a student of half the FLOPs takes more than half the time: teacher and images cost as much.
    """
    for _ in range(2):
        share = affordable(config, facts, speeds, minutes)
        less = smaller(config, facts.num_classes, share) if share < 1 else None
        if less is None:
            break
        config, speeds = less, with_students_speed(speeds, less, data)
    return config, speeds


def _plan(config: RunConfig, facts: DataFacts, num_test: int, speeds: Speeds, num_baselines: int) -> Plan:
    is_frozen = trains_head(config.teacher, config.teacher_training)
    trains = trains_whole(config.teacher, config.teacher_training)
    seconds = phases(config, facts.num_train, speeds, num_learned=num_learned(config, facts))
    if num_baselines:
        seconds["baselines"] = num_baselines * seconds["distill"]
    return Plan(
        dataset=config.data.name,
        num_train=facts.num_train,
        num_val=facts.num_val,
        num_test=num_test,
        num_classes=facts.num_classes,
        image_size=config.space.image_size,
        teacher=config.teacher.name,
        teacher_epochs=config.teacher_training.num_epochs(facts.num_train) if trains else 0,
        teacher_is_frozen=is_frozen,
        teacher_source=source_of(config.teacher) if is_frozen else None,
        num_samples=config.search.num_samples,
        max_flops=config.budget.max_flops,
        distill_epochs=config.distill.epochs,
        seconds=seconds,
    )
