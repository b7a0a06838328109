"""Teachers. Adding a kind is a file here and a row in `TEACHERS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location
from tvt_ray.teachers.cifar_resnet import CIFAR_RESNETS, build_cifar_resnet
from tvt_ray.teachers.teacher import State, Teacher
from tvt_ray.teachers.timm_cnn import PREFIX, build_timm, check_name
from tvt_ray.teachers.weights import load_weights, read_state

if TYPE_CHECKING:
    from tvt_ray.teachers.settings import TeacherSettings

# Makes the untrained network that settings name; the state is what will be loaded into it, None where it is trained.
Builder: TypeAlias = Callable[["TeacherSettings", int, State | None], Teacher]

# name -> builder; a name that ends in a colon is followed by the model's own name
TEACHERS: dict[str, Builder] = {**dict.fromkeys(CIFAR_RESNETS, build_cifar_resnet), "timm:": build_timm}


def kind_of(name: str) -> str:
    """The row of TEACHERS that a teacher's name belongs to. Raises ValueError that lists the choices."""
    head, colon, rest = name.partition(":")
    kind = head + colon
    if kind not in TEACHERS or (colon and not rest):
        close = difflib.get_close_matches(name, TEACHERS, 1)
        hint = f" (did you mean {close[0]!r}?)" if close and close[0] != name else ""
        raise ValueError(f"unknown teacher {name!r}{hint}; choices: {', '.join(describe_teachers())}")
    return kind


def describe_teachers() -> list[str]:
    """The names as people write them."""
    return [f"{name}NAME" if name.endswith(":") else name for name in TEACHERS]


def check_settings(settings: TeacherSettings) -> None:
    """Raises UsageError at once for a file that is not there and a model that timm does not have."""
    for path in (settings.weights, settings.pretrained):
        if isinstance(path, Path) and not path.is_file():
            raise UsageError(f"teacher weights: there is no file {path}")
    if settings.name.startswith(PREFIX):
        check_name(settings.name)


def build_teacher(settings: TeacherSettings, num_classes: int, weights: Location | None = None) -> Teacher:
    """An untrained teacher; with `weights`, or those of the settings, a trained one, frozen.

    Raises UsageError for an unknown timm model (names near ones), a missing file, or weights that do not fit.
    """
    weights = weights or settings.weights
    state = read_state(weights) if weights else None
    teacher = TEACHERS[kind_of(settings.name)](settings, num_classes, state)
    if state is None or weights is None:
        return teacher
    load_weights(teacher, state, weights)
    return teacher.freeze()


__all__ = ["TEACHERS", "State", "Teacher", "build_teacher", "check_settings", "describe_teachers", "kind_of"]
