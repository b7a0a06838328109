"""Makes `import torchvision` (and so `import timm`) work where its compiled operators do not fit the installed torch.

That happens when the package index offers a CPU build of torch but only the CUDA build of torchvision: the import then
stops with `operator torchvision::nms does not exist`. Transforms and datasets need none of those operators, so the two
schemas that torchvision registers kernels for while it is imported are declared here, and only when the error occurs.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # a declaration lasts as long as its library object


def ensure_torchvision() -> None:
    """Imports torchvision, declaring its operators' schemas first if that is what it fails on. Idempotent and cheap."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _libraries:
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _libraries.append(library)
        importlib.import_module("torchvision")
