"""A student as torch's own program file (.pt2): `torch.export.load` runs it without this package."""

from __future__ import annotations

import io
import json
from typing import Any

import torch

from tvt_ray.exports.folder import DistilledStudent
from tvt_ray.exports.onnx_file import captured, facts_of, quiet

FACTS_FILE = "student.json"  # inside: labels, image size, mean and deviation, as in an ONNX file's metadata


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
