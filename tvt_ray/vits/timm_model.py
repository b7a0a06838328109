"""How timm calls a student. timm itself is not needed for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STOCK_VIT = "vit_tiny_patch16_224"
OWN_VIT = "tvt_vit"  # which `import tvt_ray.exports.timm_vit` registers


@dataclass(frozen=True)
class TimmModel:
    """A registered model, and all arguments in which a student differs from it."""

    architecture: str
    model_args: Mapping[str, Any]  # plain values, as JSON holds them
    num_features: int  # channels that the classifier reads
    first_conv: str  # its module's name; timm changes it for images of other than three channels

    @property
    def is_stock(self) -> bool:
        """Whether timm has it without this package."""
        return self.architecture != OWN_VIT
