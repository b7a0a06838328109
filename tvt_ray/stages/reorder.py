"""Another score for rows that are there: whoever looks at the run afterwards sees the same order."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from tvt_ray.errors import UsageError
from tvt_ray.report.page import write_report
from tvt_ray.runs.config import RunConfig, validate
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.ranking import Ranking, make_ranking
from tvt_ray.scoring.rows import Row
from tvt_ray.storage.locations import Location


def with_score(config: RunConfig, score: str | None) -> RunConfig:
    """The config with another score. Raises UsageError for one that is unknown, or made of what was not read."""
    if score is None:
        return config
    values = config.model_dump(mode="json")
    return validate({**values, "score": {**values["score"], "name": score}})


def reorder(run_dir: Location, score: str | None = None) -> tuple[RunConfig, Ranking]:
    """A run's rows under any score, from what was read; report and top list are written anew.

    A score that is given becomes the run's, for distil and whoever comes after. Raises UsageError where there is no
    run, or no rows, or where the score is made of what was not read.
    """
    folder = RunFolder(run_dir)
    stored = folder.config()
    config = with_score(stored, score)
    rows = folder.rows().read()
    if not rows:
        raise UsageError(f"run {run_dir} has no rows yet")
    with folder.lock() if config.score != stored.score else contextlib.nullcontext():
        return config, write_order(folder, config, rows)


def settle_score(folder: RunFolder, config: RunConfig) -> None:
    """Ranks anew where the config's score is not the run's; for a driver that holds the lock."""
    if folder.config().score.name != config.score.name:
        write_order(folder, config, folder.rows().read())


def write_order(folder: RunFolder, config: RunConfig, rows: Sequence[Row]) -> Ranking:
    """Config, top list and report, all by the config's score."""
    ranking = make_ranking(rows, config.score.name, folder.calibration())
    stored = folder.config()
    if stored.score.name != config.score.name:
        folder.claim(stored.model_copy(update={"score": stored.score.model_copy(update={"name": config.score.name})}))
    folder.write_top(ranking, config.space)
    write_report(folder.report_file, rows, ranking, config)
    return ranking
