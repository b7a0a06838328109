"""What a recipe asks of a dataset and of this machine, looked at or measured."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tvt_ray.data.datasets import load_dataset, recarved
from tvt_ray.data.image_size import header_facts, median_side
from tvt_ray.data.splits import Dataset
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.planning.recipe import DataFacts, Speeds, recipe, val_fraction
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import find_profile, limits_of, make_task
from tvt_ray.scoring.reader import Reader
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.training import TeacherTrainer
from tvt_ray.training.learner import WorkerContext
from tvt_ray.training.pace import Pace, divide, step_seconds
from tvt_ray.vits import Arch

NUM_DRAWN = 200  # architectures, of which the largest within the budget is timed
NUM_READ = 4
OWN = ("imagefolder:", "parquet:")
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "F"})


def own_config(asked: Mapping[str, Any]) -> RunConfig:
    """The config for whoever names no file: of one's own images the recipe's, else the defaults, `asked` on top."""
    config = RunConfig().with_(asked)
    return look_at(asked).config if config.data.name.startswith(OWN) else config


@dataclass(frozen=True)
class LookedAt:
    """A dataset that was read, what it is like, and the config that the recipe has for it."""

    config: RunConfig
    facts: DataFacts
    data: Dataset


def look_at(asked: Mapping[str, Any]) -> LookedAt:
    """The recipe for the dataset that `asked` names, with what else it sets on top; of the digits, the defaults.

    Raises UsageError for what is wrong with the dataset or the settings.
    """
    config = RunConfig().with_(asked)
    data = load_dataset(config.data)
    if config.data.name == RunConfig().data.name:  # what the defaults were made for: a digit is no photograph
        return LookedAt(config, facts_of(data), data)
    fraction = {"data": {"val_fraction": val_fraction(len(data.train) + len(data.val))}}
    data = recarved(data, RunConfig().with_(fraction, asked).data)
    facts = facts_of(data)
    chosen = dict(recipe(facts, torch.cuda.is_available(), config.budget))
    if config.teacher != RunConfig().teacher:  # who brings a teacher has chosen
        del chosen["teacher"]
    return LookedAt(RunConfig().with_(fraction, chosen, asked), facts, data)


def facts_of(data: Dataset) -> DataFacts:
    """Of the training images, from the headers of some."""
    looked = header_facts(data)
    return DataFacts(
        num_train=len(data.train),
        num_val=len(data.val),
        num_classes=data.num_classes,
        side=median_side(looked),
        grey=all(each.mode in GREY_MODES for each in looked),
    )


def measure_speeds(config: RunConfig, data: Dataset, arch_s: float | None = None) -> Speeds:
    """A few steps of teacher and student, and a few architectures read: some seconds. Nothing is kept.

    `arch_s`: what reading an architecture takes, where that was measured already. A teacher whose weights are given is
    not trained, and takes no step. Raises UsageError where they do not fit.
    """
    cores = os.cpu_count() or 1
    if config.teacher.weights:
        teacher, teacher_step_s = build_teacher(config.teacher, data.num_classes), 0.0
    else:
        trainer = TeacherTrainer(config.teacher.untrained(), config.teacher_training, data, _device())
        teacher_step_s = _per_step(trainer.measure(cores), data)
        teacher = trainer.teacher.cpu().freeze()
    return Speeds(
        teacher_step_s=teacher_step_s,
        student_step_s=_student_step_s(config, data, teacher),
        arch_s=_arch_seconds(config, data, teacher) / cores if arch_s is None else arch_s,
    )


def with_students_speed(speeds: Speeds, config: RunConfig, data: Dataset) -> Speeds:
    """The speeds with the student's measured anew: of the largest one within the config's budget."""
    teacher = build_teacher(config.teacher.untrained(), data.num_classes).freeze()
    return dataclasses.replace(speeds, student_step_s=_student_step_s(config, data, teacher))


def smaller(config: RunConfig, num_classes: int, share: float) -> RunConfig | None:
    """The config with a limit on FLOPs, of so much of those that the largest student within the budget has.

    A fifth of what is drawn stays inside, so that there is a choice. None where no limit would leave out any.
    """
    flops = sorted(config.space.cost(arch, num_classes).flops for arch in _drawn(config, num_classes))
    limit = max(round(share * flops[-1]), flops[len(flops) // 5])
    if limit >= flops[-1]:
        return None
    return config.with_(budget={"max_flops": limit})


def _student_step_s(config: RunConfig, data: Dataset, teacher: Teacher) -> float:
    arch = largest_arch(config, data.num_classes)
    task = DistillTask(config.space, arch, data.num_classes, config.distill, config.plugins)
    cohort = Cohort([task], DistillInputs(data.train, data.val, data.test, teacher), WorkerContext(_device()))
    pace = cohort.measure(os.cpu_count() or 1)
    cohort.teacher.cpu()
    return _per_step(pace, data)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _per_step(pace: Pace, data: Dataset) -> float:
    """A step as this machine's cores divide it, with its share of the validation that ends an epoch: a third of a step
    for as many images.
    """
    step = step_seconds(divide(os.cpu_count() or 1, pace), pace)
    return step * (1 + len(data.val) / len(data.train) / 3)


def largest_arch(config: RunConfig, num_classes: int) -> Arch:
    """Of some that are drawn within the budget, the one with most FLOPs."""
    return max(_drawn(config, num_classes), key=lambda arch: config.space.cost(arch, num_classes).flops)


def _drawn(config: RunConfig, num_classes: int) -> list[Arch]:
    """Some, within the budget where any of them are."""
    rng = random.Random(0)
    drawn = [config.space.sample(rng) for _ in range(NUM_DRAWN)]
    limits = limits_of(config, num_classes, find_profile(config))
    return [arch for arch in drawn if limits.admit(arch)] or drawn


def _arch_seconds(config: RunConfig, data: Dataset, teacher: Teacher) -> float:
    """On one core, as a worker reads."""
    threads, rng = torch.get_num_threads(), random.Random(0)
    torch.set_num_threads(1)
    reader = Reader(make_task(config, data, teacher))
    seconds = []
    for _ in range(1 + NUM_READ):
        start = time.perf_counter()
        reader.read(config.space.sample(rng))
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return float(np.mean(seconds[1:]))  # the first one warms up
