"""Ways to ship a trained student. Adding one is a file here and a row in `EXPORTS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from tvt_ray.exports.card import StudentCard
from tvt_ray.exports.folder import save_student
from tvt_ray.exports.timm_config import write_config
from tvt_ray.storage.locations import Location

# (folder, card, weights as safetensors, metrics by epoch): writes into the student's folder
Export: TypeAlias = Callable[[Location, StudentCard, bytes, Sequence[Mapping[str, float]]], None]

FOLDER = "folder"

# Each is written when a student is trained, FOLDER last: its arch.json says that the student is complete.
EXPORTS: dict[str, Export] = {"timm": write_config, FOLDER: save_student}

__all__ = ["EXPORTS", "FOLDER", "Export", "StudentCard"]
