"""What timm has to know of a student: config.json beside the weights, as on its hub. timm itself is not needed for it.

`timm.create_model("local-dir:FOLDER", pretrained=True)` then gives the student. PiTs, and plain ViTs of equal blocks,
are stock models of timm's. The rest is `tvt_vit`, which `import tvt_ray.exports.timm_vit` registers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvt_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tvt_ray.exports.card import StudentCard
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.vits.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.vits.pit import NUM_STAGES, PiTArch, PiTSpace
from tvt_ray.vits.vit import ViTArch, ViTSpace

CONFIG_FILE = "config.json"
STOCK_VIT, STOCK_PIT, OWN_VIT = "vit_tiny_patch16_224", "pit_ti_224", "tvt_vit"


@dataclass(frozen=True)
class TimmModel:
    """A registered model, and all arguments in which the student differs from it."""

    architecture: str
    model_args: Mapping[str, Any]  # plain values, as JSON holds them
    num_features: int  # channels that the classifier reads
    first_conv: str  # its module's name; timm changes it for images of other than three channels

    @property
    def is_stock(self) -> bool:
        """Whether timm has it without this package."""
        return self.architecture != OWN_VIT


def autoformer_model(space: AutoFormerSpace, arch: AutoFormerArch) -> TimmModel:
    """A stock VisionTransformer where all blocks are alike and attention is timm's."""
    equal = len(set(arch.num_heads)) == len(set(arch.mlp_ratio)) == 1
    args: dict[str, Any] = {
        "img_size": space.image_size,
        "patch_size": space.patch_size,
        "embed_dim": arch.embed_dim,
        "depth": arch.depth,
        "num_heads": arch.num_heads[0] if equal else list(arch.num_heads),
        "mlp_ratio": arch.mlp_ratio[0] if equal else list(arch.mlp_ratio),
        "global_pool": "avg",
        "class_token": True,
        "fc_norm": False,
    }
    own = {"head_dim": space.head_dim, "relative_position": space.relative_position}
    stock = equal and not any(own.values())
    args |= {} if stock else {key: value for key, value in own.items() if value}
    return TimmModel(STOCK_VIT if stock else OWN_VIT, args, arch.embed_dim, "patch_embed.proj")


def vit_model(space: ViTSpace, arch: ViTArch) -> TimmModel:
    """A stock VisionTransformer but for the convolutional stem."""
    args = {
        "img_size": space.image_size,
        "patch_size": arch.patch_size,
        "embed_dim": arch.embed_dim,
        "depth": arch.depth,
        "num_heads": arch.num_heads,
        "mlp_ratio": arch.mlp_ratio,
        "global_pool": {"token": "token", "mean": "avg"}[arch.pool],
        "class_token": arch.pool == "token",
    }
    if arch.stem == "patch":
        return TimmModel(STOCK_VIT, args, arch.embed_dim, "patch_embed.proj")
    return TimmModel(OWN_VIT, args | {"stem": "conv"}, arch.embed_dim, "patch_embed.backbone.convs.0")


def pit_model(space: PiTSpace, arch: PiTArch) -> TimmModel:
    """A stock PoolingVisionTransformer."""
    args = {
        "img_size": space.image_size,
        "patch_size": space.patch_size,
        "stride": space.stride,
        "base_dims": [arch.base_dim] * NUM_STAGES,
        "depth": list(arch.depth),
        "heads": list(arch.num_heads),
        "mlp_ratio": arch.mlp_ratio,
    }
    return TimmModel(STOCK_PIT, args, arch.widths[-1], "patch_embed.conv")


# By the space's name; students of a space that is not here go without config.json.
TIMM_MODELS: dict[str, Callable[[Any, Any], TimmModel]] = {
    "autoformer": autoformer_model,
    "pit": pit_model,
    "vit": vit_model,
}


def timm_model(card: StudentCard) -> TimmModel | None:
    """What the student is to timm; None where its space has no row in TIMM_MODELS."""
    make = TIMM_MODELS.get(card.space.name)
    return make(card.space, card.arch) if make else None


def write_config(folder: Location, card: StudentCard, weights: bytes, history: Sequence[Mapping[str, float]]) -> None:
    """config.json, for a space that timm has a model of."""
    model = timm_model(card)
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
