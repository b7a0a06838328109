"""What a run folder says of its work: data.json, which images it is of; refine.json, whom refine chose."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from tvt_ray.data.layout import listing
from tvt_ray.data.splits import Dataset
from tvt_ray.errors import UsageError
from tvt_ray.proxies.probe import ProbeSettings, select_balanced
from tvt_ray.storage.locations import Location, write_atomically

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class DataIdentity:
    """Of contents: the same dataset at another place is the same."""

    dataset: str  # as the settings have it; where it was, which may change
    fingerprint: str  # of images, labels, classes and how they are split
    class_names: tuple[str, ...]
    num_images: Mapping[str, int]  # by split
    probe: tuple[int, ...]  # which training images every architecture is read on

    @classmethod
    def of(cls, data: Dataset, probe: ProbeSettings) -> DataIdentity:
        """Raises UsageError where the probe wants more images than there are to train on."""
        counts = {name: len(split) for name, split in data.splits.items()}
        chosen = select_balanced(data.train.labels, probe.num_images, probe.seed)
        return cls(data.name, data.fingerprint(), data.class_names, counts, tuple(chosen.tolist()))

    @classmethod
    def load(cls, path: Location) -> DataIdentity | None:
        """None where there is no such file. Raises UsageError for one that is damaged."""
        return _read(path, cls, "it says which images the run is of")

    def to_json(self) -> bytes:
        """As `load` reads it."""
        return json.dumps(asdict(self), indent=1).encode()

    def difference(self, stored: DataIdentity) -> str | None:
        """How these images are others than the stored ones, in words; None where they are the same."""
        if self.class_names != stored.class_names:
            return f"its classes are {listing(stored.class_names)}, and here {listing(self.class_names)}"
        for name, count in self.num_images.items():
            if count != stored.num_images.get(name):
                return f"its {name} split has {stored.num_images.get(name, 0):,} images, and here it has {count:,}"
        if self.fingerprint != stored.fingerprint:
            return "as many images, but some are others, or have other labels, or are in other splits"
        if self.probe != stored.probe:
            return "its architectures were read on other images of the training split (the probe)"
        return None


@dataclass(frozen=True)
class Rounds:
    """The students of each round, and what all of their trainings have in common."""

    recipe: str  # as measurements name it
    epochs: int  # of a whole training, of which these are beginnings
    seed: int
    rungs: tuple[int, ...]  # epochs after which students were compared
    students: tuple[tuple[str, ...], ...] = ()  # arch ids, by round

    @property
    def chosen(self) -> list[str]:
        """All students, in the order of their rounds."""
        return [arch_id for students in self.students for arch_id in students]

    def followed_by(self, students: tuple[str, ...]) -> Rounds:
        """These rounds and one more."""
        return dataclasses.replace(self, students=(*self.students, students))

    def difference(self, other: Rounds) -> str | None:
        """How the trainings of two differ, in words; None where one may go on with the other."""
        if self.recipe != other.recipe:
            return "another recipe, teacher or dataset"
        for name in ("epochs", "seed", "rungs"):
            if getattr(self, name) != getattr(other, name):
                return f"{name} {getattr(other, name)}, here {getattr(self, name)}"
        return None

    def save(self, path: Location) -> None:
        """Raises RunError where it cannot be written."""
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Location) -> Rounds | None:
        """None where there is no such file. Raises UsageError for one that is damaged."""
        return _read(path, cls, "it says whom refine chose; move it away to refine anew")


def _read(path: Location, kind: type[Kind], what: str) -> Kind | None:
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UsageError(f"{path} is damaged ({where + ': ' if where else ''}{problem['msg']}): {what}") from None
