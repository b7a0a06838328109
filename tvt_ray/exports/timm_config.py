"""What timm has to know of a student: config.json beside the weights, as on its hub. timm itself is not needed for it.

`timm.create_model("local-dir:FOLDER", pretrained=True)` then gives the student. PiTs, and plain ViTs of equal blocks,
are stock models of timm's. The rest is `tvt_vit`, which `import tvt_ray.exports.timm_vit` registers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tvt_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tvt_ray.exports.card import StudentCard
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.vits.timm_model import TimmModel

CONFIG_FILE = "config.json"


def write_config(folder: Location, card: StudentCard, weights: bytes, history: Sequence[Mapping[str, float]]) -> None:
    """config.json, where timm has a model of the student's kind."""
    model = card.space.timm_model(card.arch)
    if model is not None:
        write_atomically(folder / CONFIG_FILE, json.dumps(_config(card, model), indent=2).encode())


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
