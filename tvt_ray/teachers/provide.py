"""A trained teacher, wherever it comes from: given weights, an earlier run's, or training now."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from safetensors.torch import save

from tvt_ray.data.splits import Dataset
from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say
from tvt_ray.storage.locations import Location, cache_folder, keep_if_possible, write_atomically
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.given import given_teacher
from tvt_ray.teachers.published import check_available
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.timm_cnn import PREFIX, check_name
from tvt_ray.teachers.training import TeacherTraining, train_teacher, trains_head

# Trains a teacher, keeping its state in the file on the way: (frozen teacher, percent on validation)
Trainer: TypeAlias = Callable[[TeacherSettings, TeacherTraining, Dataset, Location | None], tuple[Teacher, float]]


def save_teacher(teacher: Teacher, path: Location) -> None:
    """The backbone's own state dict as safetensors, which `--teacher-weights` reads."""
    state = teacher.backbone.network.state_dict()
    write_atomically(path, save({key: value.contiguous() for key, value in state.items()}))


def cached_teacher_path(settings: TeacherSettings, training: TeacherTraining, data: Dataset) -> Path:
    """A name made of all that the trained weights depend on."""
    method = {"method": "head"} if trains_head(settings, training) else {}
    key = {
        "teacher": settings.identifying(),
        "training": {**training.identifying(), **method},
        "data": data.fingerprint(),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return _trained_earlier() / f"{_file_stem(settings)}-{digest}.safetensors"


def _trained_earlier() -> Path:
    return cache_folder() / "teachers"


def _file_stem(settings: TeacherSettings) -> str:
    return re.sub(r"[:/]", "-", settings.name)


def check_weights(settings: TeacherSettings, kept_in: Location | None = None) -> None:
    """Raises UsageError, within 15 seconds, where what a teacher starts from is not to be had; nothing is downloaded.

    One that was trained earlier needs nothing, whatever the images: they are not read yet.
    """
    if settings.weights is not None or settings.pretrained is not True or not settings.name.startswith(PREFIX):
        return
    places = [place for place in (kept_in, _trained_earlier()) if place is not None]
    if not any(list(place.glob(f"{_file_stem(settings)}-*.safetensors")) for place in places):
        check_name(settings.name)
        check_available(settings.name.removeprefix(PREFIX))


def get_teacher(
    settings: TeacherSettings,
    training: TeacherTraining,
    data: Dataset,
    kept_in: Location | None = None,
    train: Trainer = train_teacher,
) -> tuple[Teacher, Location]:
    """A trained, frozen teacher and its weights' file: given, kept from an earlier run, or trained now.

    What is trained is kept in the cache and, where one is given, in the folder `kept_in`; what that held is kept
    nowhere else. A place that cannot be written is passed over with a line. An interrupted training goes on from its
    last state, beside where the teacher would be. `train`: how it is trained, here by default. Raises UsageError when
    given weights do not fit.
    """
    if settings.weights:
        return given_teacher(settings, data), settings.weights
    cached = cached_teacher_path(settings, training, data)
    places: list[Location] = [kept_in / cached.name] if kept_in is not None else []
    places.append(cached)
    unfinished = places[0].parent / f"{cached.name}.unfinished"
    begun = unfinished.exists()
    found = ((path, kept) for path in places if (kept := _read_kept(settings, data.num_classes, path)))
    source, teacher = next(found, (None, None))
    if source not in (None, cached) or (source is None and begun):
        places.remove(cached)  # the folder may be a stranger's: later runs do not get what it held
    if teacher is None:
        teacher, val_acc = train(settings, training, data, unfinished)
        say(f"teacher: {settings.name} reaches {val_acc:.1f} % on validation")
    for path in places:
        if not path.exists():
            keep_if_possible(functools.partial(save_teacher, teacher, path), f"the teacher in {path.parent}")
    if unfinished.exists():
        keep_if_possible(unfinished.unlink, f"a tidy folder: {unfinished}")
    return teacher, next((path for path in reversed(places) if path.exists()), cached)


def _read_kept(settings: TeacherSettings, num_classes: int, path: Location) -> Teacher | None:
    """None where there is no such file, or a damaged one, which is then removed."""
    if not path.is_file():
        return None
    say(f"teacher: {settings.name}, trained earlier ({path})")
    try:
        return build_teacher(settings, num_classes, path)
    except (UsageError, RunError) as error:
        say(f"teacher: that file is damaged ({error})")
        keep_if_possible(path.unlink, f"a whole teacher in {path.parent}")
        return None
