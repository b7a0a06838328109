"""Ways to ship a trained student. Adding one is a file here and a row in `EXPORTS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvt_ray.exports import formats
from tvt_ray.exports.folder import History, StudentCard, save_student
from tvt_ray.exports.formats import Format, write_config
from tvt_ray.exports.model_card import write_model_card
from tvt_ray.storage.locations import Location

# (folder, card, weights as safetensors, history): writes into the student's folder
TrainedWriter: TypeAlias = Callable[[Location, StudentCard, bytes, History], None]


@dataclass(frozen=True)
class Export:
    """What is written when a student is trained, and what `tvt export --format` writes; a row has one or both."""

    when_trained: TrainedWriter | None = None
    on_demand: Format | None = None


FOLDER = "folder"

EXPORTS: dict[str, Export] = {
    "onnx": Export(on_demand=formats.ONNX),
    "pt2": Export(on_demand=formats.PROGRAM),
    "timm": Export(write_config, formats.TIMM),
    "card": Export(write_model_card),
    FOLDER: Export(save_student),
}


def write_trained(folder: Location, card: StudentCard, weights: bytes, history: History) -> None:
    """All that is written when a student is trained; FOLDER last, whose arch.json says that the student is complete."""
    for name in sorted(EXPORTS, key=lambda name: name == FOLDER):
        writer = EXPORTS[name].when_trained
        if writer is not None:
            writer(folder, card, weights, history)


def describe_formats() -> list[str]:
    """The names that `tvt export --format` takes: the rows that are written on demand."""
    return [name for name, export in EXPORTS.items() if export.on_demand is not None]


__all__ = ["EXPORTS", "FOLDER", "Export", "StudentCard", "describe_formats", "write_trained"]
