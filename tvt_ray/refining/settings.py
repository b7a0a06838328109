"""How many students are measured, and how."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from tvt_ray.strict import Strict

# Of the epochs of a whole training. Earlier ones, a ninth and a third, chose worse than chance: docs/refine.md
SHARES = (1 / 3, 2 / 3)


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
