"""Independent draws."""

from __future__ import annotations

import random

from tvt_ray.searchers.protocol import Values, seeded
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits import Arch, Space


class RandomSearch:
    """Independent draws from the space.

    A resumed run draws the same sequence again. What it is told of before it has drawn it, an earlier run drew: it is
    passed over when its turn comes, so that a draw of many thousands is caught up with in one proposal.
    """

    patience, reaches_all = None, True

    def __init__(self, space: Space, rng: random.Random) -> None:
        self.space, self.rng = space, rng
        self._pending: set[Arch] = set()  # proposed, and neither observed nor rejected yet
        self._ahead: set[Arch] = set()  # observed, and not drawn yet

    def propose(self) -> Arch | None:
        """The next draw that no earlier run made."""
        while (arch := self.space.sample(self.rng)) in self._ahead:
            self._ahead.remove(arch)
        self._pending.add(arch)
        return arch

    def observe(self, arch: Arch, values: Values | None) -> None:
        """Draws do not depend on results."""
        if arch in self._pending:
            self._pending.remove(arch)
        else:
            self._ahead.add(arch)

    def reject(self, arch: Arch) -> None:
        """Draws do not depend on rejections."""
        self._pending.discard(arch)


def build_random(settings: SearchSettings, space: Space, seed: int) -> RandomSearch:
    """Draws that the run's seed fixes."""
    return RandomSearch(space, seeded("random", seed))
