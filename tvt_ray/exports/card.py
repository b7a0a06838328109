"""What has to be known to rebuild a student, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvt_ray.data.pixels import parse_colour
from tvt_ray.exports.origin import Origin
from tvt_ray.vits import Arch, Space, parse_space


@dataclass(frozen=True)
class StudentCard:
    """What has to be known to rebuild a student, and what it reached."""

    space: Space
    arch: Arch
    class_names: tuple[str, ...]
    results: Mapping[str, Any]  # such as test_acc, in percent
    background: str = "white"  # data.background: the colour behind what is transparent in an image
    origin: Origin | None = None  # None: nothing says how it came about

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> StudentCard:
        """As `to_json` gives it. Raises ValueError, KeyError, TypeError or ValidationError for what is damaged."""
        space = parse_space(entry["space_settings"])
        background = str(entry.get("background", cls.background))
        parse_colour(background)
        return cls(
            space,
            space.from_json(entry["arch"]),
            tuple(entry["class_names"]),
            entry["results"],
            background,
            Origin.from_json(entry["origin"]) if entry.get("origin") else None,
        )

    @property
    def arch_id(self) -> str:
        """Of its architecture."""
        return self.space.arch_id(self.arch)

    def to_json(self) -> dict[str, Any]:
        """`space` and `arch` as in any file with an architecture, so that `tvt score --arch` reads it too."""
        cost = self.space.cost(self.arch, len(self.class_names))
        return {
            "space": self.space.name,
            "arch": self.space.to_json(self.arch),
            "arch_id": self.arch_id,
            "params": cost.params,
            "flops": cost.flops,
            "class_names": list(self.class_names),
            "background": self.background,
            "space_settings": self.space.model_dump(mode="json"),
            "results": dict(self.results),
            "origin": self.origin.to_json() if self.origin else None,
        }
