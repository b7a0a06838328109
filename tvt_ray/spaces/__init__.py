"""Search spaces: the architectures that exist, and what each costs. Adding one is a file here and a row in `SPACES`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator

from tvt_ray.spaces.autoformer import AutoFormerSpace
from tvt_ray.spaces.base import Arch, Space
from tvt_ray.spaces.pit import PiTSpace
from tvt_ray.spaces.vit import ViTSpace

SPACES: dict[str, type[Space]] = {"autoformer": AutoFormerSpace, "pit": PiTSpace, "vit": ViTSpace}


def parse_space(settings: Any) -> Space:
    """A space from its settings, of which `name` says the row of SPACES; a space is passed through.

    Raises ValueError for an unknown name, and pydantic's ValidationError for a setting that is wrong.
    """
    if not isinstance(settings, Mapping):
        if type(settings) in SPACES.values():
            return settings  # type: ignore[no-any-return]
        raise ValueError(f"a space is a mapping of settings with a name; got {settings!r:.80}")
    name = settings.get("name")
    if not isinstance(name, str) or name not in SPACES:
        raise ValueError(f"unknown search space {name!r}; choices: {', '.join(SPACES)}")
    return SPACES[name].model_validate(settings)


def _dump(space: Space) -> dict[str, Any]:
    return space.model_dump(mode="json")


# A field of a pydantic model that holds any space of the table.
SpaceField: TypeAlias = Annotated[Space, PlainValidator(parse_space), PlainSerializer(_dump)]

__all__ = ["SPACES", "Arch", "Space", "SpaceField", "parse_space"]
