"""How a student came about, from the run that it is of."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import Facts, Origin, StudentCard, public_name
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.storage.locations import Location
from tvt_ray.version import __version__

PACKAGES = ("torch", "timm", "ray", "numpy", "pillow")


def origin_of(
    folder: RunFolder, config: RunConfig, arch_id: str, recipe: Facts, ranking: Ranking | None, made_with: Facts
) -> Origin:
    """`recipe`: the settings of its training. `ranking`: what the run chooses by. `made_with`: as `versions` has it."""
    return origins_of(folder, config, {"": (arch_id, recipe)}, ranking, made_with)[""]


def origins_of(
    folder: RunFolder,
    config: RunConfig,
    trainings: Mapping[str, tuple[str, Facts]],
    ranking: Ranking | None,
    made_with: Facts,
) -> dict[str, Origin]:
    """As `origin_of`, of several: `trainings` has the architecture and the recipe of each. The run is read once."""
    data, search = _data(folder), {} if ranking is None else _search(folder, config, ranking)
    return {
        name: Origin(data, {} if ranking is None else {**search, "place": _place(ranking, arch_id)}, recipe, made_with)
        for name, (arch_id, recipe) in trainings.items()
    }


def ranking_of(folder: RunFolder, config: RunConfig) -> Ranking | None:
    """The ranking that a run chooses by; None where it has no rows that it ranks."""
    try:
        rows = folder.rows().read()
        return folder.ranking(config.score, rows) if rows else None
    except UsageError:
        return None


def with_origin(card: StudentCard, student: Location, config: RunConfig | None) -> StudentCard:
    """The card of a student that an earlier version trained, with what the run still says that its folder lies in.

    `config`: of that run; None where there is none.
    """
    if card.origin is not None or config is None:
        return card
    folder, arch_id = RunFolder(student.parent.parent), card.space.arch_id(card.arch)
    origin = origin_of(folder, config, arch_id, {}, ranking_of(folder, config), {})
    return dataclasses.replace(card, origin=origin)


def versions() -> Facts:
    """Of what trains here, now."""
    found = {"tvt_ray": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def _data(folder: RunFolder) -> Facts:
    identity = DataIdentity.load(folder.data_file)
    if identity is None:
        return {}
    return {"name": public_name(identity.dataset), "fingerprint": identity.fingerprint, **identity.num_images}


def _place(ranking: Ranking, arch_id: str) -> int | None:
    """Of the architecture's shape in the ranking, from 1; None where the run never read it."""
    shape = next((each.row.shape for each in ranking.scored if each.row.arch_id == arch_id), None)
    places = {each.row.shape: place for place, each in enumerate(ranking.entries, 1)}
    return None if shape is None else places[shape]


def _search(folder: RunFolder, config: RunConfig, ranking: Ranking) -> Facts:
    return {
        "space": config.space.name,
        "searcher": config.search.searcher,
        "score": ranking.by,
        "num_scored": len(ranking.scored),
        "num_shapes": ranking.num_shapes,
        "num_measured": len({each.arch_id for each in folder.measurements().read()}),
    }
