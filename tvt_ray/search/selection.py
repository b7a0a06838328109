"""Which of the scored architectures to keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tvt_ray.search.rows import Row


def _scored(rows: Iterable[Row]) -> list[tuple[float, Row]]:
    return [(row.score, row) for row in rows if row.score is not None]


def top_k(rows: Iterable[Row], k: int) -> list[Row]:
    """The k best scores, best first; ties go to fewer FLOPs, then to the smaller id, so that order never matters."""
    ranked = sorted(_scored(rows), key=lambda pair: (-pair[0], pair[1].flops, pair[1].arch_id))
    return [row for _, row in ranked[:k]]


def pareto_front(rows: Iterable[Row]) -> list[Row]:
    """Rows that no other beats in score at as few FLOPs, or in FLOPs at as high a score; fewest FLOPs first."""
    ranked = sorted(_scored(rows), key=lambda pair: (pair[1].flops, -pair[0], pair[1].arch_id))
    front: list[Row] = []
    best = float("-inf")
    for score, row in ranked:
        if score > best:
            front.append(row)
            best = score
    return front


def best_score(rows: Sequence[Row]) -> float | None:
    return max((score for score, _ in _scored(rows)), default=None)
