"""Who proposes what to read next. Adding a searcher is a file here and a row in `SEARCHERS`."""

from __future__ import annotations

from collections.abc import Callable

from tvt_ray.searchers.evolution import build_evolution
from tvt_ray.searchers.exhaustive import build_exhaustive
from tvt_ray.searchers.optuna_search import build_nsga2, build_tpe
from tvt_ray.searchers.protocol import Algorithm
from tvt_ray.searchers.random_search import build_random
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits.space import Space

# name -> builder, from (settings, space, seed)
SEARCHERS: dict[str, Callable[[SearchSettings, Space, int], Algorithm]] = {
    "random": build_random,
    "exhaustive": build_exhaustive,
    "evolution": build_evolution,
    "tpe": build_tpe,
    "nsga2": build_nsga2,
}


def check_searcher(name: str) -> None:
    """Raises ValueError, which lists the choices, for a name that is no row of SEARCHERS."""
    if name not in SEARCHERS:
        raise ValueError(f"unknown searcher {name!r}; choices: {', '.join(SEARCHERS)}")


def build_algorithm(settings: SearchSettings, space: Space, seed: int) -> Algorithm:
    """The searcher that the settings name."""
    return SEARCHERS[settings.searcher](settings, space, seed)


__all__ = ["SEARCHERS", "Algorithm", "build_algorithm", "check_searcher"]
