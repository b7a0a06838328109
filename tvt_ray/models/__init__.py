"""Students and teachers as modules. A space's model is one row in `STUDENTS`."""

from __future__ import annotations

import torch

from tvt_ray.models.autoformer import AutoFormer
from tvt_ray.models.draws import draws_of
from tvt_ray.models.layers import Student
from tvt_ray.models.pit import PiT
from tvt_ray.space import Arch, Space

STUDENTS: dict[str, type[Student]] = {"autoformer": AutoFormer, "pit": PiT}


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
        student = STUDENTS[space.name](space, arch, num_classes)  # type: ignore[call-arg]
    student.init_weights(draws_of(seed, space.arch_id(arch), draw, device))
    if not shared:
        for parameter in student.parameters():
            parameter.data = parameter.data.clone()
    return student.eval()


__all__ = ["STUDENTS", "Student", "build_student"]
