"""How many architectures, and who proposes them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from tvt_ray.strict import Strict


class SearchSettings(Strict):
    """How many architectures, and who proposes them."""

    num_samples: PositiveInt = 5000  # different architectures
    searcher: str = "random"  # a row of SEARCHERS
    objectives: Literal["score", "score_flops"] = "score"  # score_flops: nsga2 searches the Pareto front
    max_seconds_per_arch: float | None = Field(600, gt=0)  # a row with its reason beyond that; None: no limit
    max_failure_share: float = Field(0.5, ge=0, le=1)  # of the architectures scored; beyond that the run stops
    population: int = Field(64, ge=2)  # evolution, nsga2
    tournament: int = Field(16, ge=1)  # evolution
    crossover: float = Field(0.0, ge=0, le=1)  # evolution: share of children with two parents

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        if self.objectives == "score_flops" and self.searcher != "nsga2":
            raise ValueError(f"objectives score_flops needs the searcher nsga2; got {self.searcher}")
        return self

    @property
    def num_objectives(self) -> int:
        """1: the score; 2: the score and, to be small, the FLOPs."""
        return 2 if self.objectives == "score_flops" else 1
