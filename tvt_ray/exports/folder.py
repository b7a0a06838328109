"""A trained student as a folder that anyone can load: arch.json, model.safetensors, metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from tvt_ray.data.images import bounded
from tvt_ray.data.pixels import parse_colour, to_rgb
from tvt_ray.data.transforms import eval_tensor
from tvt_ray.errors import UsageError
from tvt_ray.exports.card import StudentCard
from tvt_ray.storage.locations import Location, RemotePath, as_location, write_atomically
from tvt_ray.vits.student import Student

ARCH_FILE, WEIGHTS_FILE, METRICS_FILE = "arch.json", "model.safetensors", "metrics.jsonl"


class DistilledStudent(nn.Module):
    """A trained student with its preprocessing and class names, in evaluation mode."""

    def __init__(self, student: Student, card: StudentCard) -> None:
        super().__init__()
        self.student, self.card = student, card
        self.class_names, self.image_size = card.class_names, card.space.image_size
        self.background = parse_colour(card.background)
        self.eval()

    def transform(self, image: Image.Image) -> Tensor:
        """A PIL image of any size and mode -> (3, image_size, image_size), as in training's validation."""
        return eval_tensor(bounded(to_rgb(image, self.background)), self.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, image_size, image_size), ImageNet-normalised as `transform` gives them -> logits (B, classes)."""
        logits: Tensor = self.student(images)
        return logits

    def predict(self, images: Sequence[Image.Image]) -> list[tuple[str, float]]:
        """The likeliest class of each image, and its probability."""
        return self.classify([self.transform(image) for image in images])

    @torch.inference_mode()
    def classify(self, batch: Sequence[Tensor]) -> list[tuple[str, float]]:
        """The same of images that `transform` gave."""
        device = next(self.parameters()).device
        probabilities, classes = self(torch.stack(list(batch)).to(device)).softmax(1).max(1)
        return [(self.class_names[c], p) for c, p in zip(classes.tolist(), probabilities.tolist(), strict=True)]


def save_student(folder: Location, card: StudentCard, weights: bytes, history: Sequence[Mapping[str, float]]) -> None:
    """Writes the folder; `weights` as safetensors. arch.json comes last, so that a folder with one is complete."""
    write_atomically(folder / WEIGHTS_FILE, save(load(weights), {"format": "pt"}))
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
        card = StudentCard.from_json(json.loads((folder / ARCH_FILE).read_text()))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UsageError(f"{folder / ARCH_FILE} does not describe a student: {str(error).splitlines()[0]}") from None
    with torch.device("meta"):
        student = card.space.build(card.arch, len(card.class_names))
    try:
        student.load_state_dict(load((folder / WEIGHTS_FILE).read_bytes()), assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise UsageError(f"{folder / WEIGHTS_FILE} does not fit {ARCH_FILE}: {str(error).splitlines()[0]}") from None
    return DistilledStudent(student, card)
