"""How many architectures, and who proposes them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from tvt_ray.strict import Strict


class SearchSettings(Strict):
    """How many architectures, and who proposes them."""

    num_samples: PositiveInt = 5000  # different architectures to score
    searcher: str = "random"  # who proposes: a row of SEARCHERS
    # score_flops: nsga2 searches the Pareto front of score and FLOPs
    objectives: Literal["score", "score_flops"] = "score"
    # an architecture that takes longer becomes a failed row; None: no limit
    max_seconds_per_arch: float | None = Field(600, gt=0)
    # share of the scored architectures that may fail before the run stops
    max_failure_share: float = Field(0.5, ge=0, le=1)
    population: int = Field(64, ge=2)  # evolution and nsga2: size of the population
    tournament: int = Field(16, ge=1)  # evolution: members of the population of which the best becomes a parent
    crossover: float = Field(0.0, ge=0, le=1)  # evolution: share of children with two parents
    callbacks: tuple[str, ...] = ()  # of Ray Tune, that hear of each architecture as of a trial: rows of CALLBACKS

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        if self.objectives == "score_flops" and self.searcher != "nsga2":
            raise ValueError(f"objectives score_flops needs the searcher nsga2; got {self.searcher}")
        return self

    @property
    def num_objectives(self) -> int:
        """1: the score; 2: the score and, to be small, the FLOPs."""
        return 2 if self.objectives == "score_flops" else 1
