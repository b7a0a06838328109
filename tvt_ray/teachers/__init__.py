"""Teachers. Adding a kind is a file here and a row in `TEACHERS`."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.storage.locations import Location
from tvt_ray.teachers.checkpoints import read_content, told
from tvt_ray.teachers.cifar_resnet import CIFAR_RESNETS, build_cifar_resnet
from tvt_ray.teachers.published import HUBS
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import NUM_STAGES, State, Teacher
from tvt_ray.teachers.timm_cnn import PREFIX, build_timm, check_pretrained
from tvt_ray.teachers.weights import as_float32, candidates, describe, load_weights, read_state

Maps: TypeAlias = tuple[Tensor, ...]
# Makes the untrained network that settings name; the state is what will be loaded into it, None where it is trained.
Builder: TypeAlias = Callable[[TeacherSettings, int, State | None], Teacher]

AUTO = "auto"  # a pretrained teacher that is to be had, chosen for images of one's own where a recipe is made

# name -> builder; a name that ends in a colon is followed by the model's own name
TEACHERS: dict[str, Builder] = {**dict.fromkeys(CIFAR_RESNETS, build_cifar_resnet), "timm:": build_timm}


def kind_of(name: str) -> str:
    """The row of TEACHERS that a teacher's name belongs to. Raises ValueError that lists the choices."""
    if name == AUTO:
        return AUTO
    head, colon, rest = name.partition(":")
    kind = head + colon
    if kind not in TEACHERS or (colon and not rest):
        close = [f"{PREFIX}{name}"] if name.startswith(HUBS) else difflib.get_close_matches(name, TEACHERS, 1)
        hint = f" (did you mean {close[0]!r}?)" if close and close[0] != name else ""
        raise ValueError(f"unknown teacher {name!r}{hint}; choices: {', '.join(describe_teachers())}")
    return kind


def describe_teachers() -> list[str]:
    """The names of TEACHERS as people write them: timm:NAME for the row `timm:`."""
    return [f"{name}NAME" if name.endswith(":") else name for name in TEACHERS]


def check_settings(settings: TeacherSettings) -> Teacher:
    """All that can be known of a teacher without the data, in about a second: untrained, of two classes.

    Raises UsageError for a file that is not there or holds no weights, a model that timm does not have, and a network
    that gives no three stage maps of images of that size.
    """
    if settings.name == AUTO:
        raise UsageError("teacher.name=auto chooses a teacher for images of one's own: name one, or give no --config")
    for path in (settings.weights, settings.pretrained):
        if isinstance(path, Path):
            read_state(path, tell=lambda choice: None)  # told when it is used
    if settings.name in CIFAR_RESNETS and isinstance(settings.pretrained, Path):
        raise UsageError(
            f"{settings.name} is trained from scratch; a file as teacher.pretrained is for timm:NAME, "
            "and trained weights are teacher.weights"
        )
    is_timm = settings.name.startswith(PREFIX)
    untrained = check_maps(settings, is_timm)
    if is_timm and settings.weights is None and settings.pretrained is True:
        check_pretrained(untrained)
    return untrained


def check_maps(settings: TeacherSettings, is_large: bool) -> Teacher:
    """An untrained teacher that was seen to give three stage maps of its images, the coarsest last.

    Found out by a run of two blank images. Of a network that may be large only the shapes are computed: it comes
    without numbers, in a tenth of a second. Torch has to import for that what timm has imported.
    Raises UsageError for a network that gives no such maps, or not of images of that size.
    """
    untrained = settings.untrained()
    teacher, maps = _try_shapes(untrained) if is_large else _try_in_full(untrained)
    sizes = [features.shape[-1] for features in maps]
    if len(sizes) != NUM_STAGES:
        raise UsageError(f"{teacher.name} gives {len(sizes)} stage maps; a teacher gives {NUM_STAGES}")
    if sizes[0] < 2 or not all(sizes):
        raise UsageError(
            f"images of {teacher.image_size} pixels are too small for {teacher.name}: its stage maps are {sizes} "
            "pixels wide; set teacher.image_size to more"
        )
    if sizes[0] == sizes[-1] and not (_has_weights(settings) and is_vit(teacher)):
        raise UsageError(
            f"{teacher.name} cannot teach: its maps are all {sizes[0]} pixels wide, as a ViT's are, where the stages "
            "of a CNN get coarser; resnet56 and timm:resnet18 are some, and so is a ViT with pretrained weights"
        )
    return teacher


def _has_weights(settings: TeacherSettings) -> bool:
    return settings.weights is not None or settings.pretrained is not False


def is_vit(teacher: Teacher) -> bool:
    """Whether a teacher is a plain ViT of timm's, of whose weights students may take some."""
    blocks: Any = getattr(teacher.backbone.network, "blocks", None)
    return isinstance(blocks, nn.Sequential) and len(blocks) > 0 and hasattr(blocks[0], "attn")


def _try_shapes(settings: TeacherSettings) -> tuple[Teacher, Maps]:
    """Where shapes alone fail, the network in full works, or says better what is wrong."""
    try:
        with torch.device("meta"):
            return _run_blank(settings)
    except UsageError:
        raise
    except Exception:
        return _try_in_full(settings)


def _try_in_full(settings: TeacherSettings) -> tuple[Teacher, Maps]:
    try:
        with torch.random.fork_rng(devices=[]):
            return _run_blank(settings)
    except UsageError:
        raise
    except Exception as error:  # whatever the network raises
        if settings.image_size is None:
            raise UsageError(f"{settings.name} cannot be run on images ({told(error)}): choose another") from None
        what = f"{settings.name} does not take images of {settings.image_size} pixels ({told(error)})"
    own, _ = _try_shapes(settings.model_copy(update={"image_size": None}))
    raise UsageError(f"{what}; its own size is {own.image_size}: set teacher.image_size to that, or leave it out")


@torch.no_grad()
def _run_blank(settings: TeacherSettings) -> tuple[Teacher, Maps]:
    teacher = build_teacher(settings, num_classes=2).eval()
    return teacher, teacher(torch.zeros(2, 3, teacher.image_size, teacher.image_size))[1]


def build_teacher(settings: TeacherSettings, num_classes: int, weights: Location | None = None) -> Teacher:
    """An untrained teacher; with `weights`, or those of the settings, a trained one, frozen.

    Raises UsageError for an unknown timm model (names near ones), a missing file, or weights that do not fit.
    """
    weights = weights or settings.weights
    if weights is None:
        return build_empty(settings, num_classes, None)
    content = read_content(weights)
    found = candidates(content, lambda state: build_empty(settings, num_classes, state))
    tell = functools.partial(_tell, weights)
    for note in describe(found):
        tell(note)
    state = as_float32(weights, found[0].state, tell) if found else read_state(weights)
    teacher = build_empty(settings, num_classes, state)
    load_weights(teacher, state, weights)
    return teacher.freeze()


def _tell(weights: Location, note: str) -> None:
    say(f"teacher weights: {weights}: {note}")


def build_empty(settings: TeacherSettings, num_classes: int, state: State | None) -> Teacher:
    """The network that settings name, for a state that is to come; without one, from what it starts with."""
    return TEACHERS[kind_of(settings.name)](settings, num_classes, state)


__all__ = ["TEACHERS", "State", "Teacher", "build_teacher", "check_settings", "describe_teachers", "kind_of"]
