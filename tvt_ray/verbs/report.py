"""Report: rows that are there in another order, which whoever looks at the run afterwards sees."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from tvt_ray.errors import UsageError
from tvt_ray.report.page import write_report
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import Run
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import MEASURED
from tvt_ray.storage.locations import Location
from tvt_ray.verbs.session import Session


def report(run: Run | Location | str, *, score: str | None = None) -> Ranking:
    """A run's rows in order, by another score if asked, from what was read; report and top list are written anew.

    A score that is given becomes the run's, for distil and whoever comes after. Raises UsageError where there is no
    run, or no rows, or where the score is made of what was not read.
    """
    folder = (run if isinstance(run, Run) else Run.load(run)).folder
    stored = folder.config()
    config = stored if score is None else stored.ranked_by(score)
    rows = folder.rows().read()
    if not rows:
        raise UsageError(f"run {folder.path} has no rows yet")
    with folder.lock() if config.score != stored.score else contextlib.nullcontext():
        return write_order(folder, config, rows)


def settle_score(session: Session) -> None:
    """Ranks anew where the session's score is not the run's."""
    if _ranks_by(session.folder.config()) != _ranks_by(session.config):
        write_order(session.folder, session.config, session.rows)


def write_order(folder: RunFolder, config: RunConfig, rows: Sequence[Row]) -> Ranking:
    """Config, top list and report, all by the config's score."""
    learned = folder.learned(config.score, rows) if config.score.name == MEASURED else None
    ranking, stored = learned.ranking if learned else folder.ranking(config.score, rows), folder.config()
    if _ranks_by(stored) != _ranks_by(config):
        folder.claim(stored.with_(score=_ranks_by(config)))
    folder.write_top(ranking, config.space)
    write_report(folder.report_file, rows, ranking, config, learned)
    return ranking


def _ranks_by(config: RunConfig) -> dict[str, str]:
    return {"name": config.score.name, "prior": config.score.prior}
