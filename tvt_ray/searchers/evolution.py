"""Regularised evolution (Real et al. 2019, https://arxiv.org/abs/1802.01548)."""

from __future__ import annotations

import random
from collections import deque

from tvt_ray.searchers.protocol import Values, seeded
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits import Arch, Space


class EvolutionSearch:
    """Regularised evolution (Real et al. 2019, https://arxiv.org/abs/1802.01548).

    The population is the last `population` scored architectures, whatever their scores: ageing is what regularises.
    A child is a mutation of the best of a random tournament, or of a crossover of two such parents.
    """

    patience, reaches_all = 50, False

    def __init__(self, space: Space, rng: random.Random, population: int, tournament: int, crossover: float) -> None:
        self.space, self.rng, self.tournament, self.crossover = space, rng, tournament, crossover
        self._population: deque[tuple[float, Arch]] = deque(maxlen=population)

    def propose(self) -> Arch | None:
        """A random draw until the population is full, then a child."""
        if len(self._population) < (self._population.maxlen or 0):
            return self.space.sample(self.rng)
        parent = self._parent()
        if self.rng.random() < self.crossover:
            parent = self.space.crossover(parent, self._parent(), self.rng)
        return self.space.mutate(parent, self.rng)

    def _parent(self) -> Arch:
        rivals = self.rng.sample(range(len(self._population)), min(self.tournament, len(self._population)))
        return max((self._population[i] for i in rivals), key=lambda member: member[0])[1]

    def observe(self, arch: Arch, values: Values | None) -> None:
        """The youngest of the population; the oldest leaves."""
        if values is not None:
            self._population.append((values[0], arch))

    def reject(self, arch: Arch) -> None:
        """A rejected child never joins the population."""


def build_evolution(settings: SearchSettings, space: Space, seed: int) -> EvolutionSearch:
    """Evolution by a run's settings; the run's seed fixes what it draws."""
    rng = seeded("evolution", seed)
    return EvolutionSearch(space, rng, settings.population, settings.tournament, settings.crossover)
