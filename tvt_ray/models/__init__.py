"""Students and teachers as modules. A space's model is one row in `STUDENTS`."""

from __future__ import annotations

import hashlib

import torch

from tvt_ray.models.autoformer import AutoFormer
from tvt_ray.models.layers import Student
from tvt_ray.models.pit import PiT
from tvt_ray.space import Arch, Space

STUDENTS: dict[str, type[Student]] = {"autoformer": AutoFormer, "pit": PiT}


def draw_seed(seed: int, arch_id: str) -> int:
    """The seed of an architecture's weights: a hash of the run's seed and the id, in 63 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{arch_id}".encode()).digest()[:8], "big") >> 1


def build_student(space: Space, arch: Arch, num_classes: int, seed: int, device: torch.device | str = "cpu") -> Student:
    """An untrained student in eval mode, its weights a function of (seed, architecture) and the device's kind alone.

    Modules are made on the meta device, so that nothing is drawn twice.
    """
    with torch.device("meta"):
        student = STUDENTS[space.name](space, arch, num_classes)  # type: ignore[call-arg]
    student = student.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(draw_seed(seed, space.arch_id(arch)))
    student.init_weights(generator)
    return student.eval()


__all__ = ["STUDENTS", "Student", "build_student", "draw_seed"]
