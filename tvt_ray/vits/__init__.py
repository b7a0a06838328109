"""Families of ViTs: which architectures exist, what each costs, its module. One is a file and a row in `SPACES`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import torch
from pydantic import PlainSerializer, PlainValidator

from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.draws import draws_of
from tvt_ray.vits.pit import PiTSpace
from tvt_ray.vits.space import Arch, Space
from tvt_ray.vits.student import Student
from tvt_ray.vits.vit import ViTSpace

SPACES: dict[str, type[Space]] = {"autoformer": AutoFormerSpace, "pit": PiTSpace, "vit": ViTSpace}


def parse_space(settings: Any) -> Space:
    """A space from its settings, of which `name` says the row of SPACES; a space is passed through.

    Raises ValueError for an unknown name, and pydantic's ValidationError for a setting that is wrong.
    """
    if isinstance(settings, Space):
        return settings
    if not isinstance(settings, Mapping):
        raise ValueError(f"a space is a mapping of settings with a name; got {settings!r:.80}")
    name = settings.get("name")
    if not isinstance(name, str) or name not in SPACES:
        raise ValueError(f"unknown search space {name!r}; choices: {', '.join(SPACES)}")
    return SPACES[name].model_validate(settings)


def _dump(space: Space) -> dict[str, Any]:
    return space.model_dump(mode="json")


# A field of a pydantic model that holds any space of the table.
SpaceField: TypeAlias = Annotated[Space, PlainValidator(parse_space), PlainSerializer(_dump)]


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
        student = space.build(arch, num_classes)
    student.init_weights(draws_of(seed, space.arch_id(arch), draw, device))
    if not shared:
        for parameter in student.parameters():
            parameter.data = parameter.data.clone()
    return student.eval()


__all__ = ["SPACES", "Arch", "Space", "SpaceField", "Student", "build_student", "parse_space"]
