"""A student as a graph in a file that runs without this package: ONNX, or torch's own program (.pt2)."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD, normalize
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import DistilledStudent
from tvt_ray.inference import INSTALL, InputKind, OnnxFacts

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
QUANTISED = ("MatMul", "Gemm")  # not the first convolution: its share of the weights is small, and errors there spread
FACTS_FILE = "student.json"  # in a program: labels, image size, mean and deviation, as in an ONNX file's metadata


def normalised(pixels: Tensor) -> Tensor:
    """(B, S, S, 3), uint8 -> (B, 3, S, S), as the student takes them."""
    return normalize(pixels.permute(0, 3, 1, 2).float() / 255)


class PixelStudent(nn.Module):
    """A student that takes 8-bit pixels: (B, S, S, 3) uint8 -> logits (B, classes)."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, pixels: Tensor) -> Tensor:
        """The student's logits of pixels that are normalised here."""
        return self.student(normalised(pixels))  # type: ignore[no-any-return]


def check_installed() -> None:
    """Raises UsageError that names what is missing, and the command that installs it."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UsageError(f"ONNX files need {', '.join(PACKAGES)}; {name} is not installed: {INSTALL}") from None


def facts_of(student: DistilledStudent, kind: InputKind) -> OnnxFacts:
    """What a file says of itself: labels, preprocessing, the architecture's id."""
    card, size = student.card, student.image_size
    return OnnxFacts(student.class_names, size, IMAGENET_MEAN, IMAGENET_STD, kind, card.background, card.arch_id)


def captured(student: DistilledStudent, kind: InputKind = "float") -> torch.export.ExportedProgram:
    """The student as a graph for any number of images. Raises where the student fixes that number, or depends on it."""
    size = student.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    model, example = (PixelStudent(student.student), pixels) if kind == "uint8" else (student.student, pixels.float())
    if kind == "float":
        example = example.permute(0, 3, 1, 2).contiguous()
    with quiet():
        return torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def onnx_bytes(student: DistilledStudent, kind: InputKind) -> bytes:
    """The file's content. What the exporter notes of source files on this machine is left out."""
    import onnx

    name = "pixels" if kind == "uint8" else "images"
    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            captured(student, kind),
            (),
            file,
            dynamo=True,
            opset_version=OPSET,
            input_names=[name],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
        model = onnx.load(file)
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.helper.set_model_props(model, facts_of(student, kind).to_metadata())
    return model.SerializeToString()  # type: ignore[no-any-return]


def quantised(model: bytes) -> bytes:
    """The file with matrices of 8 bits, a scale for each output channel; activations are quantised as they come.

    Dynamic quantisation needs no images. Attention's own products, norms and convolutions stay in 32 bits.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quiet():
        before, after = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(model)
        quantize_dynamic(before, after, list(QUANTISED), per_channel=True, weight_type=QuantType.QInt8)
        small = onnx.load(after)
    del small.metadata_props[:]
    small.metadata_props.extend(onnx.load_from_string(model).metadata_props)
    return small.SerializeToString()  # type: ignore[no-any-return]


def program_bytes(student: DistilledStudent) -> bytes:
    """The file's content, for any number of images. What torch notes of source files on this machine is left out."""
    program = captured(student)
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)
    buffer = io.BytesIO()
    facts = {name: json.loads(text) for name, text in facts_of(student, "float").to_metadata().items()}
    with quiet():
        torch.export.save(program, buffer, extra_files={FACTS_FILE: json.dumps(facts)})
    return buffer.getvalue()


def load_program(data: bytes) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The module, and what the file says of it."""
    extra = {FACTS_FILE: ""}
    with quiet():
        program = torch.export.load(io.BytesIO(data), extra_files=extra)
    return program.module(), json.loads(extra[FACTS_FILE])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings, which concern who wrote them; errors remain exceptions."""
    before: Any = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
