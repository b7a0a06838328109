"""What has to be known to rebuild a student, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvt_ray.spaces import Arch, Space


@dataclass(frozen=True)
class StudentCard:
    """What has to be known to rebuild a student, and what it reached."""

    space: Space
    arch: Arch
    class_names: tuple[str, ...]
    results: Mapping[str, Any]  # such as test_acc, in percent
    background: str = "white"  # data.background: the colour behind what is transparent in an image

    def to_json(self) -> dict[str, Any]:
        """`space` and `arch` as in any file with an architecture, so that `tvt score --arch` reads it too."""
        cost = self.space.cost(self.arch, len(self.class_names))
        return {
            "space": self.space.name,
            "arch": self.space.to_json(self.arch),
            "arch_id": self.space.arch_id(self.arch),
            "params": cost.params,
            "flops": cost.flops,
            "class_names": list(self.class_names),
            "background": self.background,
            "space_settings": self.space.model_dump(mode="json"),
            "results": dict(self.results),
        }
