"""Teachers. Adding a kind is a file here and a row in `TEACHERS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location
from tvt_ray.teachers.check import check_maps
from tvt_ray.teachers.cifar_resnet import CIFAR_RESNETS, build_cifar_resnet
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import State, Teacher
from tvt_ray.teachers.timm_cnn import HUBS, PREFIX, build_timm, check_name, check_pretrained
from tvt_ray.teachers.weights import load_weights, read_state

# Makes the untrained network that settings name; the state is what will be loaded into it, None where it is trained.
Builder: TypeAlias = Callable[[TeacherSettings, int, State | None], Teacher]

# name -> builder; a name that ends in a colon is followed by the model's own name
TEACHERS: dict[str, Builder] = {**dict.fromkeys(CIFAR_RESNETS, build_cifar_resnet), "timm:": build_timm}


def kind_of(name: str) -> str:
    """The row of TEACHERS that a teacher's name belongs to. Raises ValueError that lists the choices."""
    head, colon, rest = name.partition(":")
    kind = head + colon
    if kind not in TEACHERS or (colon and not rest):
        close = [f"{PREFIX}{name}"] if name.startswith(HUBS) else difflib.get_close_matches(name, TEACHERS, 1)
        hint = f" (did you mean {close[0]!r}?)" if close and close[0] != name else ""
        raise ValueError(f"unknown teacher {name!r}{hint}; choices: {', '.join(describe_teachers())}")
    return kind


def describe_teachers() -> list[str]:
    """The names as people write them."""
    return [f"{name}NAME" if name.endswith(":") else name for name in TEACHERS]


def check_settings(settings: TeacherSettings) -> Teacher:
    """All that can be known of a teacher without the data, in about a second: untrained, of two classes.

    Raises UsageError for a file that is not there or holds no weights, a model that timm does not have, and a network
    that gives no three stage maps of images of that size.
    """
    for path in (settings.weights, settings.pretrained):
        if isinstance(path, Path):
            read_state(path, tell=lambda choice: None)  # told when it is used
    if settings.name in CIFAR_RESNETS and isinstance(settings.pretrained, Path):
        raise UsageError(
            f"{settings.name} is trained from scratch; a file as teacher.pretrained is for timm:NAME, "
            "and trained weights are teacher.weights"
        )
    is_timm = settings.name.startswith(PREFIX)
    if is_timm:
        check_name(settings.name)
    untrained = check_maps(settings, TEACHERS[kind_of(settings.name)], is_large=is_timm)
    if is_timm and settings.weights is None and settings.pretrained is True:
        check_pretrained(untrained)
    return untrained


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
