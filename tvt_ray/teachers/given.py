"""A teacher whose weights somebody gives: which of a file's weights it gets, and whether they know these images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from tvt_ray.data.layout import listing
from tvt_ray.data.names import alike
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.storage.locations import Location
from tvt_ray.teachers import build_empty, build_teacher
from tvt_ray.teachers.checkpoints import read_content
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import State, Teacher
from tvt_ray.teachers.training import Verdict, judge
from tvt_ray.teachers.weights import Candidate, as_float32, candidates, class_names_in, load_weights

MOST_IMAGES = 1000  # that validate, on which weights are measured
ENOUGH_IMAGES = 100  # on which it shows that they know nothing


def given_teacher(settings: TeacherSettings, data: Dataset) -> Teacher:
    """The frozen teacher with the weights that `settings.weights` names, measured on images that validate.

    Of several weights in the file that fit (a moving average beside what it averages) the best on those are taken, and
    the classifier's rows are put in the dataset's order where the file names its classes. Raises UsageError where none
    fit, and where they name no more of the images right than chance does.
    """
    path = settings.weights
    assert path is not None
    content = read_content(path)
    found = candidates(content, lambda state: build_empty(settings, data.num_classes, state))
    if not found:
        return build_teacher(settings, data.num_classes)  # which says what does not fit
    names, val = class_names_in(content), data.val.sample(MOST_IMAGES)
    measured = [(each, *_measured(settings, path, each, names, data, val)) for each in found]
    place, teacher, verdict = max(measured, key=lambda each: each[2].accuracy)  # of equals the preferred one
    if len(found) > 1:
        scores = ", ".join(f"{each.place or 'the file'} {of.accuracy:.1f} %" for each, _, of in measured)
        say(f"teacher weights: {path}: of several on validation: {scores}; those under {place.place} are taken")
    if not verdict.worth_following and len(val) >= ENOUGH_IMAGES:
        said = f"; it names its classes {listing(names)}, the dataset {listing(data.class_names)}" if names else ""
        raise UsageError(
            f"{path} knows nothing of these images: {verdict.sentence()}. Its classes may be in another order than "
            f"{listing(data.class_names, 4)}, or it was trained on others{said}"
        )
    return teacher


def _measured(
    settings: TeacherSettings,
    path: Location,
    candidate: Candidate,
    names: Sequence[str] | None,
    data: Dataset,
    val: Split,
) -> tuple[Teacher, Verdict]:
    teacher = build_empty(settings, data.num_classes, candidate.state)
    state = as_float32(path, candidate.state, lambda note: say(f"teacher weights: {path}: {note}"))
    order = _order(names, data.class_names)
    if order is not None:
        say(f"teacher weights: {path}: its classes are put in the dataset's order")
        state = _reordered(teacher, state, order)
    load_weights(teacher, state, path)
    return teacher.freeze(), judge(teacher, dataclasses.replace(data, val=val))


def _order(names: Sequence[str] | None, wanted: Sequence[str]) -> list[int] | None:
    """The row of each of the dataset's classes; None where the file does not name just these, or in their order."""
    if names is None:
        return None
    rows = {alike(name): row for row, name in enumerate(names)}
    keys = [alike(name) for name in wanted]
    if len(rows) != len(names) or sorted(rows) != sorted(keys):
        return None
    order = [rows[key] for key in keys]
    return None if order == sorted(order) else order


def _reordered(teacher: Teacher, state: State, order: list[int]) -> State:
    """With the rows of the last linear layer that has one for each class in another order."""
    heads = [
        name
        for name, part in teacher.backbone.network.named_modules()
        if isinstance(part, nn.Linear) and part.out_features == len(order)
    ]
    ends = {f"{heads[-1]}.{end}" for end in ("weight", "bias")} if heads else set()
    return {name: value[order] if name in ends else value for name, value in state.items()}
