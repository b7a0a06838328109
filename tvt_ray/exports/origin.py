"""How a student came about, as its arch.json keeps it and its model card tells it: plain values, and no places."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Origin:
    """What is not known is not there: every part may be empty."""

    data: Facts = field(default_factory=dict)  # name, fingerprint; train, val, test: numbers of images
    search: Facts = field(default_factory=dict)  # score, num_scored, num_shapes, place, num_measured, searcher
    recipe: Facts = field(default_factory=dict)  # the settings of the training
    versions: Facts = field(default_factory=dict)  # of packages, when it was trained

    @classmethod
    def from_json(cls, entry: Any) -> Origin:
        """Raises ValueError, TypeError or KeyError for what is damaged."""
        return cls(**{part.name: dict(entry[part.name]) for part in dataclasses.fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return dataclasses.asdict(self)


def public_name(dataset: str) -> str:
    """A dataset's name without where it lies: imagefolder:/home/me/photos is imagefolder:photos."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}{colon}{path.rstrip('/').rpartition('/')[2]}"
