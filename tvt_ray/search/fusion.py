"""From components to one score, by the statistics of a fixed calibration sample.

How the published pair (t, s) becomes one number is not published; a min-max helper beside it hints at min-max
normalisation over the candidates. Over the candidates of a run, an architecture's score would depend on which others
happened to be drawn; over a calibration sample that the run's seed fixes, it does not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tvt_ray.proxies import PROXIES
from tvt_ray.search.rows import Row
from tvt_ray.storage import write_atomically


@dataclass(frozen=True)
class Score:
    """A sum of min-max normalised readings (0 and 1 are the calibration sample's extremes), or one reading as it is."""

    readings: tuple[str, ...]


SCORES: dict[str, Score] = {
    "tvt": Score(("t", "s")),
    "t": Score(("t",)),
    "s": Score(("s",)),
    "params": Score(("params",)),  # the baseline that a score has to beat
    "flops": Score(("flops",)),
}


class ScoreSettings(BaseModel):
    """Which score ranks, and how large the sample is that fixes its scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "tvt"
    calibration_samples: int = Field(64, ge=2)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SCORES:
            raise ValueError(f"unknown score {name!r}; choices: {', '.join(SCORES)}")
        return name

    @property
    def proxies(self) -> tuple[str, ...]:
        """The proxies to run: t and s always, so that any of the scores can re-rank a finished run."""
        return tuple(PROXIES)


@dataclass(frozen=True)
class Calibration:
    """The readings of the calibration sample, one mapping per architecture that could be scored."""

    readings: tuple[Mapping[str, float], ...]

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> Calibration:
        return cls(tuple(row.readings() for row in rows if row.status == "ok"))

    def fuse(self, score: str, row: Row) -> float | None:
        """The named score of a row; None for a failed one."""
        if row.status != "ok":
            return None
        names, values = SCORES[score].readings, row.readings()
        if len(names) == 1:
            return values[names[0]]
        return sum(self._min_max(name, values[name]) for name in names)

    def _min_max(self, name: str, value: float) -> float:
        sample = [readings[name] for readings in self.readings]
        low, high = min(sample), max(sample)
        return (value - low) / (high - low) if high > low else 0.0  # a reading that never varies says nothing

    def save(self, path: Path, seconds_each: float) -> None:
        """`seconds_each`: what scoring one of them took, which a resumed run sizes its trials by."""
        stored = {"seconds_each": seconds_each, "readings": list(self.readings)}
        write_atomically(path, json.dumps(stored, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Calibration:
        loaded: Any = json.loads(path.read_text())
        return cls(tuple(loaded["readings"]))


def calibration_rng(seed: int) -> random.Random:
    """Draws the calibration sample: of the run's seed, but unrelated to what the searcher draws."""
    return random.Random(f"calibration/{seed}")
