"""Search spaces: the architectures that exist, and what each costs. Adding one is a file here and a row in `SPACES`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from tvt_ray.space.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.space.base import Budget, Cost, SearchSpace
from tvt_ray.space.pit import PiTArch, PiTSpace

Arch: TypeAlias = AutoFormerArch | PiTArch
Space: TypeAlias = SearchSpace[Arch]
SpaceSettings = Annotated[AutoFormerSpace | PiTSpace, Field(discriminator="name")]

SPACES: dict[str, type[AutoFormerSpace] | type[PiTSpace]] = {"autoformer": AutoFormerSpace, "pit": PiTSpace}


def as_space(settings: AutoFormerSpace | PiTSpace) -> Space:
    """The settings as what all spaces promise. Each takes its own architectures alone, which types cannot say here."""
    return settings  # type: ignore[return-value]


__all__ = [
    "SPACES",
    "Arch",
    "AutoFormerArch",
    "AutoFormerSpace",
    "Budget",
    "Cost",
    "PiTArch",
    "PiTSpace",
    "Space",
    "SpaceSettings",
    "as_space",
]
