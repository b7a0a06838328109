"""From readings to a score, on the scale of a sample that the run's seed fixes.

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
from typing import Any

from tvt_ray.errors import UsageError
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import Term, find_score
from tvt_ray.storage.locations import Location, first_line, write_atomically
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Limits

MAX_DRAWS = 1000  # for each architecture of the sample


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
            loaded: Any = json.loads(path.read_text())
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
