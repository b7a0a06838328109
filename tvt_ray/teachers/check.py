"""Whether a network can teach: it takes images of the size that is asked for, and gives three maps that get coarser.

Found out before any work by a run of two blank images. Of a network that may be large only the shapes are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from tvt_ray.errors import UsageError
from tvt_ray.teachers.checkpoints import told
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import NUM_STAGES, State, Teacher

BLANK_IMAGES, BLANK_CLASSES = 2, 2
Maps: TypeAlias = tuple[Tensor, ...]
Build: TypeAlias = Callable[[TeacherSettings, int, State | None], Teacher]  # as in the table of teachers


def check_maps(settings: TeacherSettings, build: Build, is_large: bool = False) -> Teacher:
    """An untrained teacher that was seen to give three stage maps of its images, the coarsest last.

    A large one comes without numbers, in a tenth of a second. Torch has to import for that what timm has imported.
    Raises UsageError for a network that gives no such maps, or not of images of that size.
    """
    untrained = settings.untrained()
    teacher, maps = _try_shapes(untrained, build) if is_large else _try_in_full(untrained, build)
    sizes = [features.shape[-1] for features in maps]
    if len(sizes) != NUM_STAGES:
        raise UsageError(f"{teacher.name} gives {len(sizes)} stage maps; a teacher gives {NUM_STAGES}")
    if sizes[0] < 2 or not all(sizes):
        raise UsageError(
            f"images of {teacher.image_size} pixels are too small for {teacher.name}: its stage maps are {sizes} "
            "pixels wide; set teacher.image_size to more"
        )
    if sizes[0] == sizes[-1]:
        raise UsageError(
            f"{teacher.name} cannot teach: its maps are all {sizes[0]} pixels wide, as a ViT's are, where the stages "
            "of a CNN get coarser; resnet56 and timm:resnet18 are some"
        )
    return teacher


def _try_shapes(settings: TeacherSettings, build: Build) -> tuple[Teacher, Maps]:
    """Where shapes alone fail, the network in full works, or says better what is wrong."""
    try:
        with torch.device("meta"):
            return _run_blank(settings, build)
    except UsageError:
        raise
    except Exception:
        return _try_in_full(settings, build)


def _try_in_full(settings: TeacherSettings, build: Build) -> tuple[Teacher, Maps]:
    try:
        with torch.random.fork_rng(devices=[]):
            return _run_blank(settings, build)
    except UsageError:
        raise
    except Exception as error:  # whatever the network raises
        if settings.image_size is None:
            raise UsageError(f"{settings.name} cannot be run on images ({told(error)}): choose another") from None
        what = f"{settings.name} does not take images of {settings.image_size} pixels ({told(error)})"
    own, _ = _try_shapes(settings.model_copy(update={"image_size": None}), build)
    raise UsageError(f"{what}; its own size is {own.image_size}: set teacher.image_size to that, or leave it out")


@torch.no_grad()
def _run_blank(settings: TeacherSettings, build: Build) -> tuple[Teacher, Maps]:
    teacher = build(settings, BLANK_CLASSES, None).eval()
    return teacher, teacher(torch.zeros(BLANK_IMAGES, 3, teacher.image_size, teacher.image_size))[1]
