"""A ranking: one order of a run's rows, by any score. Choices from it hold one architecture of each shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import Calibration
from tvt_ray.vits.budget import Budget


@dataclass(frozen=True)
class Entry:
    """A row and what it scores."""

    row: Row
    score: float


@dataclass(frozen=True)
class Ranking:
    """Rows by one score, best first.

    Ties go to fewer FLOPs, then to the smaller id, so that the order in which rows came never matters.
    """

    by: str
    scored: tuple[Entry, ...]  # all, those of one shape included, which scores tell apart by noise alone

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The best of each shape: what one chooses from."""
        first_of_shape: dict[str, Entry] = {}
        for each in self.scored:
            first_of_shape.setdefault(each.row.shape, each)
        return tuple(first_of_shape.values())

    @property
    def num_shapes(self) -> int:
        """How many different shapes were scored."""
        return len(self.entries)

    def top(self, k: int) -> list[Entry]:
        """The k best, one of each shape."""
        return list(self.entries[:k])

    def head(self, k: int) -> Ranking:
        """The ranking of those alone."""
        return Ranking(self.by, tuple(self.top(k)))

    def within(self, budget: Budget) -> Ranking:
        """The part of it that a budget admits."""
        inside = tuple(each for each in self.scored if budget.admits(each.row.params, each.row.flops))
        return Ranking(self.by, inside)

    def front(self) -> list[Entry]:
        """Those that none beats in score at as few FLOPs, or in FLOPs at as high a score; fewest FLOPs first."""
        by_flops = sorted(self.entries, key=lambda each: (each.row.flops, -each.score, each.row.arch_id))
        front: list[Entry] = []
        for each in by_flops:
            if not front or each.score > front[-1].score:
                front.append(each)
        return front

    def ladder(self, count: int) -> list[Entry]:
        """At most `count` of the front, from the best downwards in sizes as evenly apart as there are, by log FLOPs."""
        front = self.front()
        if len(front) <= count:
            return front[::-1]
        logs = np.log([each.row.flops for each in front])
        rungs = np.linspace(logs[-1], logs[0], count)
        return [front[i] for i in dict.fromkeys(int(np.abs(logs - rung).argmin()) for rung in rungs)]


def by_score(by: str, scored: Iterable[Entry]) -> Ranking:
    """Puts rows that have a score in order."""
    return Ranking(by, tuple(sorted(scored, key=lambda each: (-each.score, each.row.flops, each.row.arch_id))))


def make_ranking(rows: Sequence[Row], by: str, calibration: Calibration) -> Ranking:
    """The rows that can be scored, by a named score.

    Raises UsageError where it is made of what the rows do not hold.
    """
    return by_score(by, (Entry(row, score) for row in rows if (score := calibration.score(by, row)) is not None))
