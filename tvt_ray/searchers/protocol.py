"""What every searcher promises: it proposes, and observes."""

from __future__ import annotations

import random
from typing import Protocol, TypeAlias

from tvt_ray.vits import Arch

Values: TypeAlias = tuple[float, ...]  # one per objective; score is maximised, flops minimised


class Algorithm(Protocol):
    """Every proposal is followed, at some time and in any order, by `observe` or `reject` of the same architecture."""

    @property
    def patience(self) -> int | None:
        """Proposals in a row that may be rejected before others are asked; None: as many as random draws get."""
        ...

    @property
    def reaches_all(self) -> bool:
        """Whether its own proposals come to every architecture, so that nobody else is asked."""
        ...

    def propose(self) -> Arch | None:
        """An architecture, repeated and over-budget ones included; None when there are no more."""
        ...

    def observe(self, arch: Arch, values: Values | None) -> None:
        """None: could not be scored. Also told of architectures that it did not propose."""
        ...

    def reject(self, arch: Arch) -> None:
        """The proposal was over budget or known and is not going to be scored."""
        ...


def seeded(searcher: str, seed: int) -> random.Random:
    """A searcher's own generator: of the run's seed, unrelated to what other parts of the run draw."""
    return random.Random(f"{searcher}/{seed}")
