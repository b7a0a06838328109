"""What scores there are, and what a run reads for them. A fused score is a row of `SCORES`; any reading is one too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.rows import ARITHMETIC, SCHEMA
from tvt_ray.strict import Strict


@dataclass(frozen=True)
class Term:
    """One reading's part in a score."""

    reading: str
    weight: float = 1.0
    log: bool = False  # of the reading, which is then positive


@dataclass(frozen=True)
class Score:
    """A weighted sum of readings, each brought to the calibration sample's scale; a single reading stays as it is.

    min-max: 0 and 1 are the sample's extremes. z-score: the sample's mean is 0 and its standard deviation 1.
    """

    terms: tuple[Term, ...]
    scale: Literal["min-max", "z-score", "none"] = "none"

    @property
    def readings(self) -> tuple[str, ...]:
        """What has to be read of an architecture to score it."""
        return tuple(term.reading for term in self.terms)

    @property
    def proxies(self) -> tuple[str, ...]:
        """Those of its readings that are read off a student."""
        return tuple(name for name in self.readings if name not in ARITHMETIC)


SCORES: dict[str, Score] = {
    # docs/proxies.md says how the default came about
    "capacity": Score((Term("params", 2, log=True), Term("rank_sum", 2), Term("log_norm")), "z-score"),
    "tvt": Score((Term("attention_similarity"), Term("l2_norm")), "min-max"),
}

MEASURED = "measured"  # no score of untrained architectures: what trainings of a few say of all (refine)

# What a `full` run reads of every architecture, so that `capacity` and `tvt` can both rank it: a forward pass, no more.
FULL = ("attention_similarity", "l2_norm", "rank_sum", "log_norm")


def score_names() -> list[str]:
    """Everything that ranks: fused scores, what is known by arithmetic, and each proxy by itself."""
    return [*SCORES, *ARITHMETIC, *PROXIES]


def find_score(name: str) -> Score:
    """The score of this name. Raises ValueError that lists the choices."""
    if name in SCORES:
        return SCORES[name]
    if name not in score_names():
        raise ValueError(f"unknown score {name!r}; choices: {', '.join(score_names())}")
    return Score((Term(name),))


class ScoreSettings(Strict):
    """Which score ranks, what is read of every architecture, and how large the sample is that fixes a score's scale."""

    name: str = "capacity"  # what ranks: a fused score, a single reading, or measured (after refine)
    prior: str = "capacity"  # where `name` is measured: the score that stands in for what was not measured
    # full: what `capacity` and `tvt` are made of; score: what the score reads alone, which may need no teacher
    readings: Literal["full", "score"] = "full"
    # what is read; None: what `readings` says. A run keeps the proxies that it began with
    proxies: tuple[str, ...] | None = None
    calibration_samples: int = Field(64, ge=2)  # architectures whose readings fix the scale of a score

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != MEASURED and name not in score_names():
            raise ValueError(f"unknown score {name!r}; choices: {', '.join([*score_names(), MEASURED])}")
        return name

    @field_validator("prior")
    @classmethod
    def _prior_known(cls, name: str) -> str:
        find_score(name)
        return name

    @property
    def zero_cost(self) -> str:
        """The score that needs no training: the name, or its prior."""
        return self.prior if self.name == MEASURED else self.name

    def named(self, name: str) -> ScoreSettings:
        """Another score in front, which may be made of what was not read: whoever ranks by it finds that out.

        `measured` keeps the present one as its prior.
        """
        return self.model_copy(update={"name": name, "prior": self.zero_cost})

    @field_validator("proxies")
    @classmethod
    def _all_known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in PROXIES:
                raise ValueError(f"unknown proxy {name!r}; choices: {', '.join(PROXIES)}")
            if name in SCHEMA.names:
                raise ValueError(f"a proxy cannot be called {name!r}, as a column of the rows is")
        return names

    @model_validator(mode="after")
    def _read_what_it_is_made_of(self) -> ScoreSettings:
        for name in find_score(self.zero_cost).proxies if self.proxies is not None else ():
            if name not in self.to_read:
                read = ", ".join([*ARITHMETIC, *self.to_read])
                raise ValueError(
                    f"score {self.zero_cost!r} is made of {name!r}, which this run did not read; it read {read}"
                )
        return self

    @property
    def to_read(self) -> tuple[str, ...]:
        """The proxies that every architecture is read by."""
        if self.proxies is not None:
            return self.proxies
        return tuple(dict.fromkeys([*(FULL if self.readings == "full" else ()), *find_score(self.zero_cost).proxies]))
