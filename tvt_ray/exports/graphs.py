"""A student as a graph in a file that runs without this package: ONNX, or torch's own program (.pt2)."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD, normalize
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import DistilledStudent
from tvt_ray.inference import InputKind, OnnxFacts

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
QUANTISED = ("Conv", "Gemm", "MatMul")
CALIBRATION_IMAGES = 128  # of training, on which the ranges of activations are found
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
            raise UsageError(
                f"ONNX files need {name}, which is not installed: pip install {' '.join(PACKAGES)}"
            ) from None


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
    _forget_sources(model)
    onnx.helper.set_model_props(model, facts_of(student, kind).to_metadata())
    return model.SerializeToString()  # type: ignore[no-any-return]


def quantised(model: bytes, batches: Sequence[NDArray[Any]]) -> bytes:
    """The file with products and most convolutions of 8 bits; norms, softmax and activation functions stay in 32.

    So do depthwise convolutions and the first one, which hold few weights: in 8 bits they cost points of accuracy.
    Static quantisation: a scale for each output channel of the weights, and one for each activation, by the ranges that
    these have over `batches`, which are as the file takes them. So an image's logits do not depend on the others of its
    batch, as they do where ranges are found as activations come.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        """Gives each batch once."""

        def __init__(self, name: str) -> None:
            self._left = iter([{name: batch} for batch in batches])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as folder, quiet():
        before, prepared, after = (Path(folder) / name for name in ("model.onnx", "prepared.onnx", "int8.onnx"))
        before.write_bytes(model)
        quant_pre_process(before, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            after,
            Batches(onnx.load_from_string(model).graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=_sensitive(onnx.load(prepared)),
            per_channel=True,
            reduce_range=True,  # without it 16-bit sums overflow on processors that have no VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        small = onnx.load(after)
    _forget_sources(small)
    used = {node.domain or "ai.onnx" for node in small.graph.node}
    kept = [
        each for each in small.opset_import if (each.domain or "ai.onnx") in used
    ]  # preparing imports all there are
    del small.opset_import[:]
    small.opset_import.extend(kept)
    del small.metadata_props[:]
    small.metadata_props.extend(onnx.load_from_string(model).metadata_props)
    return small.SerializeToString()  # type: ignore[no-any-return]


def _sensitive(model: Any) -> list[str]:
    """Names of depthwise convolutions and of the first one."""
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    grouped = [node for node in found if any(each.name == "group" and each.i > 1 for each in node.attribute)]
    return [node.name for node in (*found[:1], *grouped)]


def _forget_sources(model: Any) -> None:
    """What exporter and quantiser note of source files on this machine."""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


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
