"""What a search may propose: a budget, applied to the architectures of a space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvt_ray.vits.budget import Budget
from tvt_ray.vits.space import Arch, Space


@dataclass(frozen=True)
class Limits:
    """A budget with all that says whether an architecture is inside: costs by arithmetic, latency by a prediction."""

    space: Space
    budget: Budget
    num_classes: int
    latency_ms: Callable[[Arch], float] | None = None  # predicted; there where the budget limits it

    def __post_init__(self) -> None:
        if self.budget.max_latency_ms is not None and self.latency_ms is None:
            raise ValueError(f"max_latency_ms {self.budget.max_latency_ms:g} needs something that predicts latencies")

    def admit(self, arch: Arch) -> bool:
        """Whether an architecture of the space is inside."""
        if not self.budget.admits(self.space.cost(arch, self.num_classes)):
            return False
        limit = self.budget.max_latency_ms
        return limit is None or self.latency_ms is None or self.latency_ms(arch) <= limit
