"""The whole space."""

from __future__ import annotations

from collections.abc import Iterator

from tvt_ray.searchers.protocol import Values
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits import Arch, Space


class ExhaustiveSearch:
    """The whole space, in its own order."""

    reaches_all = True

    def __init__(self, space: Space) -> None:
        self.patience = space.size()
        self._archs: Iterator[Arch] = space.enumerate()

    def propose(self) -> Arch | None:
        """The next of the space."""
        return next(self._archs, None)

    def observe(self, arch: Arch, values: Values | None) -> None:
        """The order does not depend on results."""

    def reject(self, arch: Arch) -> None:
        """The order does not depend on rejections."""


def build_exhaustive(settings: SearchSettings, space: Space, seed: int) -> ExhaustiveSearch:
    """The whole space, whatever the settings and the seed."""
    return ExhaustiveSearch(space)
