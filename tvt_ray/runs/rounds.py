"""Whom refine chose, round by round, kept in the run folder before anyone is trained."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location, first_line, write_atomically


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
        """With one more round."""
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
        if not path.is_file():
            return None
        try:
            stored: Any = json.loads(path.read_bytes())
            rungs = tuple(int(rung) for rung in stored["rungs"])
            students = tuple(tuple(str(arch_id) for arch_id in each) for each in stored["students"])
            return cls(str(stored["recipe"]), int(stored["epochs"]), int(stored["seed"]), rungs, students)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is damaged ({first_line(error)}): it says whom refine chose; move it away to refine anew"
            ) from None
