"""Files that are made on demand, and what each computes: they are compared with the student before they are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD, eval_loader
from tvt_ray.errors import UsageError
from tvt_ray.exports import graphs
from tvt_ray.exports.folder import WEIGHTS_FILE, DistilledStudent, History, StudentCard
from tvt_ray.inference import OnnxStudent
from tvt_ray.quality.evaluation import ClassMatch
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.vits import SPACES, Space
from tvt_ray.vits.student import TimmModel

ONNX_FILE, INT8_FILE, PROGRAM_FILE = "model.onnx", "model.int8.onnx", "model.pt2"
TOLERANCE = 1e-4  # of logits
BATCHES = (1, 7)  # images at a time
CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class Wish:
    """What is asked of a format beside the student itself."""

    int8: bool = False  # a second file, whose weights and activations are of 8 bits
    pixels: bool = False  # the file takes 8-bit pixels and normalises them itself
    calibration: Tensor | None = None  # of int8: training images, (n, S, S, 3) uint8


@dataclass(frozen=True)
class Computes:
    """What a file computes, on the CPU."""

    prepare: Callable[[Tensor], Any]  # pixels (B, S, S, 3), uint8 -> what the file takes
    logits: Callable[[Any], NDArray[np.float32]]  # of that: (B, classes)


# (folder, student, wish): writes files, and gives those that compute something, by name
Writer: TypeAlias = Callable[[Path, DistilledStudent, Wish], list[str]]


@dataclass(frozen=True)
class Format:
    """A way to write a student on demand."""

    write: Writer
    load: Callable[[Path], Computes]  # of a file that was written
    check: Callable[[DistilledStudent, Wish], None]  # beforehand; raises UsageError


def computes(module: Callable[[Tensor], Tensor]) -> Computes:
    """Of a module of torch's that takes what the student takes."""

    def logits(images: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(images).numpy()
        return found

    return Computes(graphs.normalised, logits)


def _plain(name: str, wish: Wish) -> None:
    """Raises UsageError for what ONNX files alone can do."""
    if wish.int8 or wish.pixels:
        what = "--int8" if wish.int8 else "--pixels"
        raise UsageError(f"{what} is of ONNX files: --format onnx; got {name}")


def _write_onnx(folder: Path, student: DistilledStudent, wish: Wish) -> list[str]:
    model = graphs.onnx_bytes(student, "uint8" if wish.pixels else "float")
    (folder / ONNX_FILE).write_bytes(model)
    if not wish.int8:
        return [ONNX_FILE]
    assert wish.calibration is not None
    prepare = _load_onnx(folder / ONNX_FILE).prepare
    batches = [prepare(each) for each in torch.split(wish.calibration, CALIBRATION_BATCH)]  # type: ignore[no-untyped-call]
    (folder / INT8_FILE).write_bytes(graphs.quantised(model, batches))
    return [ONNX_FILE, INT8_FILE]


def _load_onnx(file: Path) -> Computes:
    model = OnnxStudent(file.read_bytes(), torch.get_num_threads())

    def prepare(pixels: Tensor) -> NDArray[Any]:
        array: NDArray[Any] = (pixels if model.facts.input == "uint8" else graphs.normalised(pixels)).numpy()
        return np.ascontiguousarray(array)

    return Computes(prepare, model)


def _write_program(folder: Path, student: DistilledStudent, wish: Wish) -> list[str]:
    (folder / PROGRAM_FILE).write_bytes(graphs.program_bytes(student))
    return [PROGRAM_FILE]


def write_config(folder: Location, card: StudentCard, weights: bytes, history: History) -> None:
    """config.json beside the weights, as on timm's hub, where timm has a model of the student's kind.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` then gives the student. PiTs, and plain ViTs of equal
    blocks, are stock models of timm's. The rest is `tvt_vit`, which `import tvt_ray.exports.timm_vit` registers.
    """
    model = card.space.timm_model(card.arch)
    if model is not None:
        write_atomically(folder / "config.json", json.dumps(_config(card, model), indent=2).encode())


def _config(card: StudentCard, model: TimmModel) -> dict[str, Any]:
    """In the format of timm's hub. Images are seen as in `DistilledStudent.transform`: the centred square, resized."""
    size = card.space.image_size
    return {
        "architecture": model.architecture,
        "num_classes": len(card.class_names),
        "num_features": model.num_features,
        "label_names": list(card.class_names),
        "model_args": dict(model.model_args),
        "pretrained_cfg": {
            "tag": card.space.arch_id(card.arch),
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "num_classes": len(card.class_names),
            "pool_size": None,
            "first_conv": model.first_conv,
            "classifier": "head",
        },
    }


def _write_timm(folder: Path, student: DistilledStudent, wish: Wish) -> list[str]:
    weights = save(student.student.state_dict(), {"format": "pt"})
    (folder / WEIGHTS_FILE).write_bytes(weights)
    write_config(folder, student.card, weights, [])
    return [WEIGHTS_FILE]


def _load_timm(file: Path) -> Computes:
    from tvt_ray.exports import timm_vit  # noqa: F401 (its model is registered)

    import timm  # isort: skip (it needs what the line above makes sure of)

    return computes(timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval())


def _check_timm(student: DistilledStudent, wish: Wish) -> None:
    _plain("timm", wish)
    if student.card.space.timm_model(student.card.arch) is None:
        known = ", ".join(name for name, space in SPACES.items() if space.timm_model is not Space.timm_model)
        raise UsageError(f"timm has models for students of the spaces {known}; got {student.card.space.name}")


ONNX = Format(_write_onnx, _load_onnx, lambda student, wish: graphs.check_installed())
PROGRAM = Format(
    _write_program,
    lambda file: computes(graphs.load_program(file.read_bytes())[0]),
    lambda student, wish: _plain("pt2", wish),
)
TIMM = Format(_write_timm, _load_timm, _check_timm)


def pixels_of(images: Tensor) -> Tensor:
    """(B, 3, S, S), ImageNet-graphs.normalised -> the nearest 8-bit levels, (B, S, S, 3) uint8."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (255 * (images * std + mean)).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def some_of(split: Split, image_size: int, count: int = sum(BATCHES)) -> Tensor:
    """Images evenly spread over a split, by default for all BATCHES together: (count, S, S, 3) uint8.

    A small split's repeat.
    """
    places = np.linspace(0, len(split) - 1, count).round().astype(np.int64)
    ((images, _),) = eval_loader(split.take(places), image_size, len(places))
    return pixels_of(images)


def drawn(image_size: int) -> Tensor:
    """Noise, as many images as `some_of` gives: (8, S, S, 3) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (sum(BATCHES), image_size, image_size, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def largest_difference(file: Computes, student: DistilledStudent, pixels: Tensor) -> float:
    """Of any logit, over BATCHES; not finite where the file's are not, or have another shape."""
    worst = 0.0
    for batch in torch.split(pixels, list(BATCHES)):  # type: ignore[no-untyped-call]
        expected, found = student(graphs.normalised(batch)).numpy(), file.logits(file.prepare(batch))
        if found.shape != expected.shape:
            return float("nan")
        worst = max(worst, float(np.abs(found - expected).max()), key=lambda each: (np.isnan(each), each))
    return worst


def hits_of(file: Computes, split: Split, image_size: int, match: ClassMatch) -> NDArray[np.bool_]:
    """Which images of a split are named right: (n,). `match`: which of the student's classes the split's are."""
    return np.concatenate([found == label for found, label in _named(file, split, image_size, match)])


def _named(file: Computes, split: Split, image_size: int, match: ClassMatch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for images, labels in eval_loader(split, image_size):
        yield file.logits(file.prepare(pixels_of(images))).argmax(1), match.relabel(labels.numpy())
