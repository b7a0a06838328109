"""Students as modules. A space's model is a row in `STUDENTS`, under the space's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from tvt_ray.spaces.base import Arch, Space
from tvt_ray.students.autoformer import AutoFormer
from tvt_ray.students.draws import draws_of
from tvt_ray.students.layers import Student
from tvt_ray.students.pit import PiT
from tvt_ray.students.vit import ViT

# (space, architecture, classes) -> the module, its weights not yet drawn; each takes the space of its own name
Builder: TypeAlias = Callable[[Any, Arch, int], Student]

STUDENTS: dict[str, Builder] = {"autoformer": AutoFormer, "pit": PiT, "vit": ViT}


def build_student(
    space: Space,
    arch: Arch,
    num_classes: int,
    seed: int,
    device: torch.device | str = "cpu",
    draw: int = 0,
    shared: bool = False,
) -> Student:
    """An untrained student in eval mode, its weights a function of (seed, architecture, draw) alone.

    `shared`: weights may be views of numbers that other students read too, for who reads them and writes nothing;
    otherwise they are the student's own.
    """
    with torch.device(device):
        student = STUDENTS[space.name](space, arch, num_classes)
    student.init_weights(draws_of(seed, space.arch_id(arch), draw, device))
    if not shared:
        for parameter in student.parameters():
            parameter.data = parameter.data.clone()
    return student.eval()


__all__ = ["STUDENTS", "Student", "build_student"]
