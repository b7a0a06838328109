"""What students begin with, found out before anything is trained: `distill.init`, and whether it fits them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import torch

from tvt_ray.distillation.initial import errors_name_the_setting, read_source
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.rows import Row, arch_of
from tvt_ray.spaces import Arch, Space
from tvt_ray.students import STUDENTS, build_student
from tvt_ray.students.layers import Student
from tvt_ray.students.selection import check_fits, check_stages, select_weights
from tvt_ray.students.sources import Source


def check_init_setting(config: RunConfig) -> None:
    """Before it is known who is trained: raises UsageError where `distill.init` is unreadable or of another kind."""
    if config.distill.init is not None:
        init = read_source(config.distill.init)
        with errors_name_the_setting():
            check_stages(init, _shapes(config.space, config.space.largest_arch(1)), f"space {config.space.name}")


def check_init(init: Source | None, config: RunConfig, rows: Iterable[Row]) -> None:
    """Raises UsageError for the first of some architectures that is larger than the weights in any way."""
    if init is None:
        return
    for row in {row.shape: row for row in rows if row.status == "ok"}.values():
        student = _shapes(config.space, arch_of(row, config.space))
        with errors_name_the_setting():
            check_fits(init, student, row.arch_id)


def begin_as_they_can(init: Source | None, tasks: Mapping[str, DistillTask]) -> dict[str, DistillTask]:
    """The same trainings by name, where those of students that the weights do not fit begin with what is drawn.

    That is said of each student once: a rival may be of another kind, or larger.
    """
    if init is None:
        return dict(tasks)
    begun, told = dict[str, DistillTask](), set[str]()
    for name, task in tasks.items():
        begun[name] = task
        try:
            check_fits(init, _shapes(task.space, task.arch), task.arch_id)
        except UsageError as error:
            begun[name] = dataclasses.replace(task, settings=task.settings.with_(init=None))
            if task.arch_id not in told:
                say(f"init: {task.arch_id} begins with what is drawn: {error}")
            told.add(task.arch_id)
    return begun


def _shapes(space: Space, arch: Arch) -> Student:
    """A student without numbers."""
    with torch.device("meta"):
        return STUDENTS[space.name](space, arch, 1)


def tell_of_init(init: Source | None, tasks: Iterable[DistillTask]) -> None:
    """Says of each student how much of it is filled, and from what."""
    if init is None:
        return
    for task in tasks:
        student = build_student(task.space, task.arch, task.num_classes, task.settings.seed)
        selected = select_weights(init, student, task.arch_id)
        say(f"init: {task.arch_id}: {selected.sentence()} from {init.describe()}")
