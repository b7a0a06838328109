"""A trained student as a folder that anyone can load: arch.json, model.safetensors, metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from tvt_ray.data.transforms import eval_tensor
from tvt_ray.errors import UsageError
from tvt_ray.models import STUDENTS, Student
from tvt_ray.space import Arch, Space, SpaceSettings, as_space
from tvt_ray.storage import Location, RemotePath, as_location, write_atomically

ARCH_FILE, WEIGHTS_FILE, METRICS_FILE = "arch.json", "model.safetensors", "metrics.jsonl"


@dataclass(frozen=True)
class StudentCard:
    """What has to be known to rebuild a student, and what it reached."""

    space: Space
    arch: Arch
    class_names: tuple[str, ...]
    results: Mapping[str, Any]  # such as test_acc, in percent

    def to_json(self) -> dict[str, Any]:
        """`space` and `arch` as in any file with an architecture, so that `tvt score --arch` reads it too."""
        cost = self.space.cost(self.arch, len(self.class_names))
        return {
            "space": self.space.name,
            "arch": self.space.to_json(self.arch),
            "arch_id": self.space.arch_id(self.arch),
            "params": cost.params,
            "flops": cost.flops,
            "class_names": list(self.class_names),
            "space_settings": self.space.model_dump(mode="json"),  # type: ignore[attr-defined]
            "results": dict(self.results),
        }


class DistilledStudent(nn.Module):
    """A trained student with its preprocessing and class names, in evaluation mode."""

    def __init__(self, student: Student, card: StudentCard) -> None:
        super().__init__()
        self.student, self.card = student, card
        self.class_names, self.image_size = card.class_names, card.space.image_size
        self.eval()

    def transform(self, image: Image.Image) -> Tensor:
        """A PIL image of any size and mode -> (3, image_size, image_size), as in training's validation."""
        return eval_tensor(image.convert("RGB"), self.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, image_size, image_size), ImageNet-normalised as `transform` gives them -> logits (B, classes)."""
        logits: Tensor = self.student(images)
        return logits

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> list[tuple[str, float]]:
        """The likeliest class of each image, and its probability."""
        device = next(self.parameters()).device
        batch = torch.stack([self.transform(image) for image in images]).to(device)
        probabilities, classes = self(batch).softmax(1).max(1)
        return [(self.class_names[c], p) for c, p in zip(classes.tolist(), probabilities.tolist(), strict=True)]


def save_student(folder: Location, card: StudentCard, weights: bytes, history: Sequence[Mapping[str, float]]) -> None:
    """Writes the folder; `weights` as safetensors. arch.json comes last, so that a folder with one is complete."""
    write_atomically(folder / WEIGHTS_FILE, weights)
    write_atomically(folder / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in history).encode())
    write_atomically(folder / ARCH_FILE, json.dumps(card.to_json(), indent=1).encode())


def load_student(folder: str | Path | RemotePath) -> DistilledStudent:
    """The student that a distillation left in `folder` (a run's distill/<arch_id>, a path or a URI), ready to predict.

    Nothing is unpickled. Raises UsageError when the folder holds no complete student.
    """
    folder = as_location(folder)
    for name in (ARCH_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} holds no trained student: there is no {name}")
    try:
        entry = json.loads((folder / ARCH_FILE).read_text())
        space = as_space(TypeAdapter(SpaceSettings).validate_python(entry["space_settings"]))
        card = StudentCard(space, space.from_json(entry["arch"]), tuple(entry["class_names"]), entry["results"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UsageError(f"{folder / ARCH_FILE} does not describe a student: {str(error).splitlines()[0]}") from None
    with torch.device("meta"):
        student = STUDENTS[space.name](space, card.arch, len(card.class_names))  # type: ignore[call-arg]
    try:
        student.load_state_dict(load((folder / WEIGHTS_FILE).read_bytes()), assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise UsageError(f"{folder / WEIGHTS_FILE} does not fit {ARCH_FILE}: {str(error).splitlines()[0]}") from None
    return DistilledStudent(student, card)
