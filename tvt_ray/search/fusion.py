"""From readings to one score, by the statistics of a fixed calibration sample.

How the published pair (t, s) becomes one number is not published; a min-max helper beside it hints at min-max
normalisation over the candidates. Over the candidates of a run, an architecture's score would depend on which others
happened to be drawn; over a calibration sample that the run's seed fixes, it does not.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tvt_ray.errors import UsageError
from tvt_ray.proxies import PROXIES
from tvt_ray.search.rows import ARITHMETIC, Row
from tvt_ray.storage import Location, write_atomically


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
        return tuple(term.reading for term in self.terms)


SCORES: dict[str, Score] = {
    # docs/proxies.md says how the default came about
    "tvt_ray": Score((Term("params", 2, log=True), Term("r", 2), Term("log_norm")), "z-score"),
    "tvt": Score((Term("t"), Term("s")), "min-max"),
    **{name: Score((Term(name),)) for name in (*ARITHMETIC, *PROXIES)},
}

# What every row holds, so that these scores can re-rank any run; a forward pass and no more.
ALWAYS_READ = ("t", "s", "r", "log_norm")


class ScoreSettings(BaseModel):
    """Which score ranks, and how large the sample is that fixes its scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "tvt_ray"
    calibration_samples: int = Field(64, ge=2)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SCORES:
            raise ValueError(f"unknown score {name!r}; choices: {', '.join(SCORES)}")
        return name

    @property
    def proxies(self) -> tuple[str, ...]:
        """The proxies to run: those of every row, and what the score reads beside them."""
        return tuple(dict.fromkeys([*ALWAYS_READ, *(r for r in SCORES[self.name].readings if r in PROXIES)]))


@dataclass(frozen=True)
class Calibration:
    """The readings of the calibration sample, one mapping per architecture that could be scored."""

    readings: tuple[Mapping[str, float], ...]

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> Calibration:
        return cls(tuple(row.readings() for row in rows if row.status == "ok"))

    def fuse(self, name: str, row: Row) -> float | None:
        """The named score of a row; None for a failed one. Raises UsageError when a reading is not in the row."""
        if row.status != "ok":
            return None
        score, values = SCORES[name], row.readings()
        missing = [reading for reading in score.readings if reading not in values]
        if missing:
            raise UsageError(
                f"score {name!r} reads {missing[0]!r}, which was not read here; there is {', '.join(values)}"
            )
        if score.scale == "none":
            return values[score.readings[0]]
        return sum(term.weight * self._scaled(term, score.scale, values[term.reading]) for term in score.terms)

    def _scaled(self, term: Term, scale: str, value: float) -> float:
        zero, unit = self._scale(term, scale)
        return (_transformed(term, value) - zero) / unit if unit else 0.0  # a reading that never varies says nothing

    def _scale(self, term: Term, scale: str) -> tuple[float, float]:
        """What counts as 0, and how much more as 1."""
        key = (term, scale)
        if key not in self._scales:
            sample = [_transformed(term, readings[term.reading]) for readings in self.readings]
            if scale == "min-max":
                self._scales[key] = min(sample), max(sample) - min(sample)
            else:
                self._scales[key] = statistics.fmean(sample), statistics.pstdev(sample)
        return self._scales[key]

    @cached_property
    def _scales(self) -> dict[tuple[Term, str], tuple[float, float]]:
        return {}

    def save(self, path: Location, seconds_each: float) -> None:
        """`seconds_each`: what scoring one of them took, which a resumed run sizes its trials by."""
        stored = {"seconds_each": seconds_each, "readings": list(self.readings)}
        write_atomically(path, json.dumps(stored, indent=1).encode())

    @classmethod
    def load(cls, path: Location) -> Calibration:
        loaded: Any = json.loads(path.read_text())
        return cls(tuple(loaded["readings"]))


def _transformed(term: Term, value: float) -> float:
    return math.log(value) if term.log else value


def calibration_rng(seed: int) -> random.Random:
    """Draws the calibration sample: of the run's seed, but unrelated to what the searcher draws."""
    return random.Random(f"calibration/{seed}")
