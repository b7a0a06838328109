"""Regularised evolution: a population of the latest, whatever their values."""

import random

from tests.searchers.driving import MEDIUM, drive, make, value
from tvt_ray.searchers.evolution import EvolutionSearch


def draws(count):
    """Different architectures."""
    rng = random.Random(0)
    return list(dict.fromkeys(MEDIUM.sample(rng) for _ in range(4 * count)))[:count]


def filled(archs, tournament, crossover=0.0):
    """A population of `archs`, of which the first is the worst."""
    search = EvolutionSearch(MEDIUM, random.Random(0), len(archs), tournament, crossover)
    for number, arch in enumerate(archs):
        search.observe(arch, (float(number),))
    return search


def test_the_first_proposals_are_random_draws():
    search = EvolutionSearch(MEDIUM, random.Random(7), 5, 2, 0.0)
    rng = random.Random(7)
    for _ in range(5):
        arch = search.propose()
        assert arch == MEDIUM.sample(rng)
        search.observe(arch, (0.0,))


def test_a_child_differs_from_the_best_of_its_tournament():
    archs = draws(6)
    search = filled(archs, tournament=6)
    children = [search.propose() for _ in range(20)]
    assert archs[-1] not in children
    assert [search._parent() for _ in range(5)] == [archs[-1]] * 5


def test_the_oldest_leaves_however_good_it_is():
    archs = draws(7)
    search = EvolutionSearch(MEDIUM, random.Random(0), 3, 3, 0.0)
    for arch, score in zip(archs[:4], (99.0, 1.0, 3.0, 2.0), strict=True):
        search.observe(arch, (score,))
    assert search._parent() == archs[2]


def test_what_failed_joins_no_population():
    archs = draws(4)
    search = filled(archs[:3], tournament=3)
    search.observe(archs[3], None)
    search.reject(archs[3])
    assert search._parent() == archs[2]


def test_children_of_two_parents_take_each_choice_from_either():
    archs = draws(2)
    search = filled(archs, tournament=1, crossover=1.0)
    assert all(child in MEDIUM for child in (search.propose() for _ in range(30)))


def test_crossover_improves_too():
    found = [value(MEDIUM, arch) for arch in drive(make("evolution", MEDIUM, crossover=0.5), MEDIUM, 120)]
    assert sum(found[-40:]) / 40 > sum(found[:10]) / 10 + 1
