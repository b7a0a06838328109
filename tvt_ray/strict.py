"""What all settings have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy's, Optuna's and PyTorch's generators all take

Pixels: TypeAlias = Annotated[int, Field(ge=1, le=4096)]  # along each side of what networks see


class Strict(BaseModel):
    """Values that do not change: keys that are not known are refused, as are numbers without end and no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()  # settings that there were not at first

    def identifying(self) -> dict[str, Any]:
        """As JSON, what hashes are made of: settings that came later count where they are not at their default, so that
        what was hashed before there were any stays what it was.
        """
        fields = type(self).model_fields
        unset = {name for name in self.later if getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude=unset)

    def with_(self, *layers: Mapping[str, Any], **changes: Any) -> Self:
        """These settings with each of `layers`, and then `changes`, over them key by key, validated as if read so.

        A model among the values replaces what was there. Raises pydantic's ValidationError.
        """
        return self.model_validate(merged(self.model_dump(mode="json"), *layers, changes))


def parse_json(text: str | bytes) -> Any:
    """What a file says that may be a stranger's. Raises ValueError for no JSON, NaN and infinity, and deep nesting."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def merged(values: Mapping[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, each layer merged over those before it, mapping by mapping.

    Settings of a space replace those of a space of another `name` whole.
    """
    for layer in layers:
        values = _over(values, layer)
    return dict(values)


def _over(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in layer.items():
        old = found.get(key)
        if isinstance(value, BaseModel):
            found[key] = value.model_dump(mode="json")
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = key == "space" and "name" in old and value.get("name", old["name"]) != old["name"]
            found[key] = dict(value) if renamed else _over(old, value)
        else:
            found[key] = value
    return found
