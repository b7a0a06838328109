"""The row: one scored architecture, and all that is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ARITHMETIC = ("params", "flops", "depth")  # readings that no student is needed for
Status = Literal["ok", "failed"]


@dataclass(frozen=True)
class Row:
    """Components are stored raw, so that another fusion can rank a finished run anew."""

    arch_id: str
    space: str
    arch: Mapping[str, Any]  # as the space's to_json gives it
    params: int
    flops: int  # multiply-accumulates for one image
    status: Status
    error: str | None  # of a failed row
    seed: int  # the run's; an architecture's weights are drawn from it and arch_id
    seconds: float  # spent on this architecture
    components: Mapping[str, float]  # by name; empty for a failed row
    score: float | None = None  # higher is better; None for a failed row, and before fusion

    def with_score(self, score: float | None) -> Row:
        return dataclasses.replace(self, score=score)

    def readings(self) -> dict[str, float]:
        """Everything that a score can be made of: components, and what the architecture says of itself."""
        depth = self.arch["depth"]
        blocks = depth if isinstance(depth, int) else sum(depth)
        return {**self.components, "params": float(self.params), "flops": float(self.flops), "depth": float(blocks)}
