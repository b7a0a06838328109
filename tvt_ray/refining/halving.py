"""Successive halving over rounds of students: what is to be trained next, from what was measured. A pure function.

It depends on nothing but the rounds and the measurements at the rungs. So whoever goes on after a crash, and replays
it, comes to the same trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from tvt_ray.strict import Strict

# Of the epochs of a whole training. Earlier ones, a ninth and a third, chose worse than chance: docs/refine.md
SHARES = (1 / 3, 2 / 3)
MIN_MEASURED = 8  # rows; with fewer, the score that needed no training decides alone


class RefineSettings(Strict):
    """Successive halving (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943), in rounds.

    Each round adds students, which rounds before have taught to choose. Trainings are the beginnings of whole ones by
    the settings of `distill`, which can go on with them.
    """

    num_students: PositiveInt = 16  # students in all rounds
    # of as many students each, the first of eight at least; each chooses by what was measured before
    rounds: PositiveInt = 2
    # epochs after which students are compared; None: a third and two thirds of distill.epochs
    rungs: tuple[PositiveInt, ...] | None = None
    reduction: int = Field(3, ge=2)  # of so many students at a rung, one goes on to the next
    repeats: NonNegativeInt = 2  # students that a second seed trains to the first rung, which measures how much is luck
    # epochs over all students: no round begins that would take more; None: no limit
    max_epochs: PositiveInt | None = None
    cohort_size: PositiveInt = 8  # students that train side by side, at most

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if rungs is not None and (not rungs or list(rungs) != sorted(set(rungs))):
            raise ValueError(f"rungs are numbers of epochs, each larger than the one before; got {list(rungs)}")
        return rungs

    def rungs_of(self, epochs: int) -> tuple[int, ...]:
        """Epochs of each rung, where a whole training has `epochs`. Raises ValueError for a rung beyond that."""
        if self.rungs is None:
            return tuple(sorted({max(1, int(share * epochs)) for share in SHARES}))
        if self.rungs[-1] > epochs:
            raise ValueError(f"refine.rungs ends at {self.rungs[-1]} epochs, distill.epochs is {epochs}")
        return self.rungs


Measured = Mapping[tuple[str, int, int], float]  # (arch id, seed, epochs) -> validation accuracy in percent


@dataclass(frozen=True)
class Training:
    """A student that is to be trained, from where it is, until it has so many epochs behind it."""

    arch_id: str
    seed: int
    epochs: int


@dataclass(frozen=True)
class Halving:
    """The rule: rungs, and how many students each leaves."""

    rungs: tuple[int, ...]  # epochs, rising
    reduction: int
    repeats: int
    seed: int  # of all trainings but repeats, which have the next one

    @classmethod
    def of(cls, settings: RefineSettings, epochs: int, seed: int) -> Halving:
        """For trainings of so many epochs. Raises ValueError for a rung beyond that."""
        return cls(settings.rungs_of(epochs), settings.reduction, settings.repeats, seed)

    def survivors(self, num_students: int, rung: int) -> int:
        """How many of them are trained to the `rung`-th rung (from 0)."""
        return max(1, math.ceil(num_students / self.reduction**rung)) if num_students else 0

    def missing(self, rounds: Sequence[Sequence[str]], measured: Measured) -> list[Training]:
        """What is to be trained next, all to one rung; empty where every round is over.

        After each round, the best of all students so far are trained on, those of earlier rounds among them.
        """
        trained: list[list[str]] = [[] for _ in self.rungs]  # by rung, in earlier rounds
        num_students = 0
        for students in rounds:
            num_students += len(students)
            trained[0] += students
            for rung in range(len(self.rungs)):
                if rung:
                    pool = self._best(trained[rung - 1], rung - 1, measured)
                    going = pool[: self.survivors(num_students, rung)]
                    trained[rung] += [arch_id for arch_id in going if arch_id not in trained[rung]]
                todo = self._untrained(trained[rung], self.seed, rung, measured)
                if rung == 0:
                    todo += self._untrained(rounds[0][: self.repeats], self.seed + 1, rung, measured)
                if todo:
                    return todo
        return []

    def _best(self, arch_ids: Sequence[str], rung: int, measured: Measured) -> list[str]:
        """The best first; of equally good ones, the one that was chosen first."""
        return sorted(arch_ids, key=lambda arch_id: -measured[arch_id, self.seed, self.rungs[rung]])

    def _untrained(self, arch_ids: Sequence[str], seed: int, rung: int, measured: Measured) -> list[Training]:
        epochs = self.rungs[rung]
        return [Training(each, seed, epochs) for each in arch_ids if (each, seed, epochs) not in measured]

    def most_epochs(self, sizes: Sequence[int]) -> int:
        """Epochs that rounds of so many students take at most, over all students, repeats included.

        A student that a later round overtakes keeps the epochs that it has had, so that each round may train on as
        many as it leaves.
        """
        total, num_students = 0, 0
        steps = [high - low for low, high in zip((0, *self.rungs), self.rungs, strict=False)]  # from rung to rung
        for size in sizes:
            num_students += size
            goers = [size, *(self.survivors(num_students, rung) for rung in range(1, len(steps)))]
            total += sum(min(count, num_students) * step for count, step in zip(goers, steps, strict=True))
        return total + min(self.repeats, sizes[0] if sizes else 0) * steps[0]


def round_sizes(settings: RefineSettings, halving: Halving) -> list[int]:
    """Students of every round, one after the other."""
    sizes: list[int] = []
    while size := next_round_size(settings, halving, sizes):
        sizes.append(size)
    return sizes


def next_round_size(settings: RefineSettings, halving: Halving, sizes: Sequence[int]) -> int:
    """Students of the round that follows rounds of so many; 0 where all have been chosen, or the budget of epochs holds
    no more. The first has as many as the surrogate learns from, where there are so many: it chooses those that follow.
    """
    size = math.ceil(settings.num_students / settings.rounds)
    wanted = min(size if sizes else max(size, MIN_MEASURED), settings.num_students - sum(sizes))
    if settings.max_epochs is not None:
        while wanted > 0 and halving.most_epochs([*sizes, wanted]) > settings.max_epochs:
            wanted -= 1
    return max(wanted, 0)
