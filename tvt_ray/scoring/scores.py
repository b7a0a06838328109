"""What scores there are, what a run reads for them, and how readings become one on the scale of a calibration sample.

A fused score is a row of `SCORES`; any reading is one too. How the published pair (t, s) becomes one number is not
published; a min-max helper beside it hints at min-max normalisation over the candidates. Over the candidates of a run,
an architecture's score would depend on which others happened to be drawn; over a sample that the run's seed fixes, it
does not.
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

from pydantic import Field, field_validator, model_validator

from tvt_ray.errors import UsageError
from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.rows import ARITHMETIC, SCHEMA, Row
from tvt_ray.storage.locations import Location, first_line, write_atomically
from tvt_ray.strict import Strict, parse_json
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Limits


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

MAX_DRAWS = 1000  # for each architecture of a calibration sample


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


@dataclass(frozen=True)
class Calibration:
    """The values of the calibration sample, one mapping per architecture that could be read."""

    sample: tuple[Mapping[str, float], ...]

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> Calibration:
        """The values of these rows, but for those that failed."""
        return cls(tuple(row.values for row in rows if row.status == "ok"))

    def score(self, name: str, row: Row) -> float | None:
        """The named score of a row, higher is better; None for a failed one.

        Raises UsageError when it is made of a reading that the row or the sample lacks.
        """
        if row.status != "ok":
            return None
        score, values = find_score(name), row.values
        missing = [reading for reading in score.readings if reading not in values]
        if missing:
            raise UsageError(
                f"score {name!r} is made of {missing[0]!r}, which this run did not read; it read {', '.join(values)}"
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
            try:
                sample = [_transformed(term, values[term.reading]) for values in self.sample]
            except KeyError:
                raise UsageError(f"the calibration sample has no {term.reading!r}: search anew for that") from None
            if scale == "min-max":
                self._scales[key] = min(sample), max(sample) - min(sample)
            else:
                self._scales[key] = statistics.fmean(sample), statistics.pstdev(sample)
        return self._scales[key]

    @cached_property
    def _scales(self) -> dict[tuple[Term, str], tuple[float, float]]:
        return {}

    def save(self, path: Location) -> None:
        """Writes it as JSON. Raises RunError where it cannot be written."""
        write_atomically(path, json.dumps({"readings": list(self.sample)}, indent=1).encode())

    @classmethod
    def load(cls, path: Location) -> Calibration:
        """Raises UsageError where the file is missing or damaged: scores cannot be told without it."""
        advice = "--resume makes it anew from the same sample, once it is moved away"
        try:
            loaded: Any = parse_json(path.read_text())
            sample = tuple({str(name): float(value) for name, value in each.items()} for each in loaded["readings"])
        except FileNotFoundError:
            raise UsageError(f"{path} is missing, without which nothing is scored; --resume makes it anew") from None
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise UsageError(f"{path} is damaged ({first_line(error)}); {advice}") from None
        if not sample:
            raise UsageError(f"{path} holds no readings; {advice}")
        if not all(math.isfinite(value) for values in sample for value in values.values()):
            raise UsageError(f"{path} is damaged (it holds a reading that is no finite number); {advice}")
        return cls(sample)


def _transformed(term: Term, value: float) -> float:
    if term.log and value <= 0:
        raise UsageError(
            f"{term.reading} is {value:g}, of which there is no logarithm: rows or calibration are damaged"
        )
    return math.log(value) if term.log else value


def calibration_archs(limits: Limits, seed: int, count: int) -> list[Arch]:
    """The calibration sample: so many architectures within the limits, drawn by the run's seed alone.

    Fewer where a space has no more. Raises UsageError where none is found.
    """
    rng, space, archs = calibration_rng(seed), limits.space, dict[str, Arch]()
    for _ in range(MAX_DRAWS * count):
        arch = space.sample(rng)
        if limits.admit(arch):
            archs[space.arch_id(arch)] = arch
        if len(archs) == count:
            break
    if not archs:
        small, large = space.smallest(limits.num_classes), space.largest(limits.num_classes)
        raise UsageError(
            f"no architecture was found within the budget ({limits.budget}): in this space parameters go from "
            f"{small.params:,} to {large.params:,} and FLOPs from {small.flops:,} to {large.flops:,}"
        )
    return list(archs.values())


def calibration_rng(seed: int) -> random.Random:
    """Of the run's seed, but unrelated to what the searcher draws."""
    return random.Random(f"calibration/{seed}")
