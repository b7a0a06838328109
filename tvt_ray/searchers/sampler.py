"""Asks a searcher until what it proposes is new and in budget."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from tvt_ray.searchers.protocol import Algorithm, Values
from tvt_ray.vits import Arch
from tvt_ray.vits.limits import Limits

# Proposals in a row that are over budget or known before a sampler turns from its algorithm's last proposal and its
# neighbours to random draws, and from those to enumeration.
MAX_NEIGHBOURS = 50
MAX_RANDOM_REJECTIONS = 20_000
MAX_ENUMERATION = 2_000_000


class Sampler:
    """Asks an algorithm until it proposes what is admissible: in budget and never given out before.

    Where an algorithm keeps proposing what is not, mutations of its last proposal are tried, then random draws, and
    where those keep missing too, the rest of the space in its own order, so that every admissible architecture of a
    space is found in the end.
    """

    def __init__(self, algorithm: Algorithm, limits: Limits, seed: int) -> None:
        self.algorithm, self.space, self.limits, self.num_classes = algorithm, limits.space, limits, limits.num_classes
        self.rng = random.Random(f"sampler/{seed}")
        self._seen: set[str] = set()
        self._last: Arch | None = None  # the latest proposal of this ask that was not admissible
        self._rest: Iterator[Arch] | None = None
        self.exhausted = False  # the last ask found nothing

    def skip(self, arch: Arch) -> None:
        """An earlier run read it, of which `tell` says more: it is not given out again."""
        self._seen.add(self.space.arch_id(arch))

    def ask(self) -> Arch | None:
        """A new architecture in budget; None when there are no more, or, in a space too large to enumerate, none that
        MAX_RANDOM_REJECTIONS draws would find.
        """
        self._last = None
        if self._rest is None:
            for propose, reject, tries in self._sources():
                found = self._first_admissible(itertools.islice(iter(propose, None), tries), reject)
                if found is not None:
                    return found
            self._rest = self.space.enumerate() if self.space.size() <= MAX_ENUMERATION else iter(())
        found = self._first_admissible(self._rest, _ignore)
        self.exhausted = found is None
        return found

    def _sources(self) -> Sequence[tuple[Callable[[], Arch | None], Callable[[Arch], None], int]]:
        patience = self.algorithm.patience
        own = (self.algorithm.propose, self._reject, MAX_RANDOM_REJECTIONS if patience is None else patience)
        if self.algorithm.reaches_all:
            return [own]
        draws = (lambda: self.space.sample(self.rng), _ignore, MAX_RANDOM_REJECTIONS)
        return [own, (self._neighbour, _ignore, MAX_NEIGHBOURS), draws]

    def _reject(self, arch: Arch) -> None:
        self._last = arch
        self.algorithm.reject(arch)

    def _neighbour(self) -> Arch | None:
        return None if self._last is None or self.space.size() < 2 else self.space.mutate(self._last, self.rng)

    def _first_admissible(self, archs: Iterator[Arch], reject: Callable[[Arch], None]) -> Arch | None:
        for arch in archs:
            arch_id = self.space.arch_id(arch)
            if arch_id not in self._seen and self.limits.admit(arch):
                self._seen.add(arch_id)
                return arch
            reject(arch)
        return None

    def tell(self, arch: Arch, values: Values | None) -> None:
        """What became of an architecture, given out or skipped; None: could not be scored."""
        self.algorithm.observe(arch, values)


def _ignore(arch: Arch) -> None:
    """Random draws and enumeration are not interested in rejections."""
