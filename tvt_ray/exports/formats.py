"""Files that are made on demand, and what each computes: they are compared with the student before they are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from tvt_ray.data.preprocess import normalize
from tvt_ray.errors import UsageError
from tvt_ray.exports import onnx_file, torch_program
from tvt_ray.exports.folder import WEIGHTS_FILE, DistilledStudent
from tvt_ray.exports.timm_config import CONFIG_FILE, write_config
from tvt_ray.inference.onnx_student import OnnxStudent
from tvt_ray.vits import SPACES, Space

ONNX_FILE, INT8_FILE, PROGRAM_FILE = "model.onnx", "model.int8.onnx", "model.pt2"


@dataclass(frozen=True)
class Wish:
    """What is asked of a format beside the student itself."""

    int8: bool = False  # a second file, whose matrices are of 8 bits
    pixels: bool = False  # the file takes 8-bit pixels and normalises them itself


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


def normalised(pixels: Tensor) -> Tensor:
    """(B, S, S, 3), uint8 -> (B, 3, S, S), as the student takes them."""
    return normalize(pixels.permute(0, 3, 1, 2).float() / 255)


def computes(module: Callable[[Tensor], Tensor]) -> Computes:
    """Of a module of torch's that takes what the student takes."""

    def logits(images: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(images).numpy()
        return found

    return Computes(normalised, logits)


def _plain(name: str, wish: Wish) -> None:
    """Raises UsageError for what ONNX files alone can do."""
    if wish.int8 or wish.pixels:
        what = "--int8" if wish.int8 else "--pixels"
        raise UsageError(f"{what} is of ONNX files: --format onnx; got {name}")


def _write_onnx(folder: Path, student: DistilledStudent, wish: Wish) -> list[str]:
    model = onnx_file.onnx_bytes(student, "uint8" if wish.pixels else "float")
    (folder / ONNX_FILE).write_bytes(model)
    if wish.int8:
        (folder / INT8_FILE).write_bytes(onnx_file.quantised(model))
    return [ONNX_FILE, INT8_FILE] if wish.int8 else [ONNX_FILE]


def _load_onnx(file: Path) -> Computes:
    model = OnnxStudent(file.read_bytes(), torch.get_num_threads())

    def prepare(pixels: Tensor) -> NDArray[Any]:
        array: NDArray[Any] = (pixels if model.facts.input == "uint8" else normalised(pixels)).numpy()
        return np.ascontiguousarray(array)

    return Computes(prepare, model)


def _write_program(folder: Path, student: DistilledStudent, wish: Wish) -> list[str]:
    (folder / PROGRAM_FILE).write_bytes(torch_program.program_bytes(student))
    return [PROGRAM_FILE]


def _write_timm(folder: Path, student: DistilledStudent, wish: Wish) -> list[str]:
    weights = save(student.student.state_dict(), {"format": "pt"})
    (folder / WEIGHTS_FILE).write_bytes(weights)
    write_config(folder, student.card, weights, [])
    assert (folder / CONFIG_FILE).is_file()
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


ONNX = Format(_write_onnx, _load_onnx, lambda student, wish: onnx_file.check_installed())
PROGRAM = Format(
    _write_program,
    lambda file: computes(torch_program.load_program(file.read_bytes())[0]),
    lambda student, wish: _plain("pt2", wish),
)
TIMM = Format(_write_timm, _load_timm, _check_timm)
