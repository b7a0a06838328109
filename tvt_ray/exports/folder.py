"""A trained student as a folder that anyone can load: arch.json, model.safetensors, metrics.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from tvt_ray.data.pixels import bounded, parse_colour, to_rgb
from tvt_ray.data.transforms import eval_tensor
from tvt_ray.errors import UsageError
from tvt_ray.inference import predict
from tvt_ray.storage.locations import Location, RemotePath, as_location, check_entries, shown, write_atomically
from tvt_ray.strict import parse_json
from tvt_ray.vits import Arch, Space, parse_space
from tvt_ray.vits.student import Student

ARCH_FILE, WEIGHTS_FILE, METRICS_FILE = "arch.json", "model.safetensors", "metrics.jsonl"
Facts: TypeAlias = Mapping[str, Any]
History: TypeAlias = Sequence[Mapping[str, float]]  # metrics by epoch


@dataclass(frozen=True)
class Origin:
    """How a student came about, as plain values that name no places. What is not known is not there."""

    data: Facts = field(default_factory=dict)  # name, fingerprint; train, val, test: numbers of images
    search: Facts = field(
        default_factory=dict
    )  # score, num_scored, num_shapes, place, num_measured, num_short, searcher
    recipe: Facts = field(default_factory=dict)  # the settings of the training
    versions: Facts = field(default_factory=dict)  # of packages, when it was trained

    @classmethod
    def from_json(cls, entry: Any) -> Origin:
        """Raises ValueError, TypeError or KeyError for what is damaged."""
        return cls(**{part.name: dict(entry[part.name]) for part in dataclasses.fields(cls)})


def public_name(dataset: str) -> str:
    """A dataset's name without where it lies: imagefolder:/home/me/photos is imagefolder:photos."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}{colon}{path.rstrip('/').rpartition('/')[2]}"


@dataclass(frozen=True)
class StudentCard:
    """What has to be known to rebuild a student, and what it reached: arch.json."""

    space: Space
    arch: Arch
    class_names: tuple[str, ...]
    results: Mapping[str, Any]  # such as test_acc, in percent
    background: str = "white"  # data.background: the colour behind what is transparent in an image
    origin: Origin | None = None  # None: nothing says how it came about

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> StudentCard:
        """As `to_json` gives it. Raises ValueError, KeyError, TypeError or ValidationError for what is damaged."""
        space = parse_space(entry["space_settings"])
        background = str(entry.get("background", cls.background))
        parse_colour(background)
        return cls(
            space,
            space.from_json(entry["arch"]),
            tuple(shown(name) for name in entry["class_names"]),
            entry["results"],
            background,
            Origin.from_json(entry["origin"]) if entry.get("origin") else None,
        )

    @property
    def arch_id(self) -> str:
        """The id of its architecture in its space."""
        return self.space.arch_id(self.arch)

    def to_json(self) -> dict[str, Any]:
        """`space` and `arch` as in any file with an architecture, so that `tvt score --arch` reads it too."""
        cost = self.space.cost(self.arch, len(self.class_names))
        return {
            "space": self.space.name,
            "arch": self.space.to_json(self.arch),
            "arch_id": self.arch_id,
            "params": cost.params,
            "flops": cost.flops,
            "class_names": list(self.class_names),
            "background": self.background,
            "space_settings": self.space.model_dump(mode="json"),
            "results": dict(self.results),
            "origin": dataclasses.asdict(self.origin) if self.origin else None,
        }


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

    def predict(self, images: Any) -> list[tuple[str, float]]:
        """The likeliest class of each image, and its probability: PIL images, paths, addresses, bytes, arrays, tensors.

        One, or several in a list (data/given.py); an empty list has none. Raises UsageError for what is no image.
        """
        return predict(self, images)

    @torch.inference_mode()
    def classify(self, batch: Sequence[Tensor]) -> list[tuple[str, float]]:
        """As `predict`, of images that `transform` gave."""
        device = next(self.parameters()).device
        probabilities, classes = self(torch.stack(list(batch)).to(device)).softmax(1).max(1)
        return [(self.class_names[c], p) for c, p in zip(classes.tolist(), probabilities.tolist(), strict=True)]


def save_student(folder: Location, card: StudentCard, weights: bytes, history: History) -> None:
    """Writes the folder; `weights` as safetensors. arch.json comes last, so that a folder with one is complete."""
    write_atomically(folder / WEIGHTS_FILE, save(load(weights), {"format": "pt"}))
    write_atomically(folder / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in history).encode())
    write_atomically(folder / ARCH_FILE, json.dumps(card.to_json(), indent=1).encode())


def load_student(folder: str | Path | RemotePath) -> DistilledStudent:
    """The student that a distillation left in `folder` (a run's distill/<arch_id>, a path or a URI), ready to predict.

    Nothing is unpickled. Raises UsageError when the folder holds no complete student.
    """
    folder = as_location(folder)
    check_entries(folder)
    for name in (ARCH_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} holds no trained student: there is no {name}")
    try:
        card = StudentCard.from_json(parse_json((folder / ARCH_FILE).read_text()))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UsageError(f"{folder / ARCH_FILE} does not describe a student: {str(error).splitlines()[0]}") from None
    weights, params = (folder / WEIGHTS_FILE).read_bytes(), card.space.cost(card.arch, len(card.class_names)).params
    if params > len(weights):  # before anything of that size is built
        raise UsageError(
            f"{folder / WEIGHTS_FILE} does not fit {ARCH_FILE}: {len(weights):,} bytes hold no {params:,} parameters"
        )
    with torch.device("meta"):
        student = card.space.build(card.arch, len(card.class_names))
    try:
        student.load_state_dict(load(weights), assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise UsageError(f"{folder / WEIGHTS_FILE} does not fit {ARCH_FILE}: {str(error).splitlines()[0]}") from None
    return DistilledStudent(student, card)
