"""Report: rows that are there in another order, which whoever looks at the run afterwards sees."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from tvt_ray.errors import UsageError
from tvt_ray.report.page import Found, write_report
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import Run
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import MEASURED
from tvt_ray.storage.locations import Location, first_line
from tvt_ray.strict import parse_json
from tvt_ray.verbs.session import Session
from tvt_ray.vits.budget import format_count

# What a fit writes beside the search (verbs/rivals.py, cuts.py, choices.py, bodies.py, labels.py).
RIVALS_FILE, CUTS_FILE, CHOICES_FILE, BODIES_FILE = "rivals.json", "cuts.json", "choices.json", "bodies.json"
LABELS_FILE = "labels.json"


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
    write_report(folder.report_file, rows, ranking, config, learned, found_by_fit(folder))
    return ranking


def found_by_fit(folder: RunFolder) -> Found:
    """What a fit left in a run folder, as tables; empty where there was none. Raises UsageError for a damaged file."""
    files = (RIVALS_FILE, CUTS_FILE, CHOICES_FILE, BODIES_FILE, LABELS_FILE)
    rivals, cuts, ways, bodies, labels = (_read(folder.path / name) for name in files)
    try:
        return Found(
            rivals["advice"] if rivals else None,
            [_rival_line(each) for each in rivals["rivals"]] if rivals else (),
            [_cut_line(each) for each in cuts] if cuts else (),
            [_way_line(each) for each in ways["ways"]] if ways else (),
            [_body_line(each) for each in bodies] if bodies else (),
            [str(line) for line in labels["sentences"]] if labels else (),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder.path}: one of {', '.join(files)} is damaged: {error!r}") from None


def bodies_of(folder: RunFolder) -> list[str]:
    """Ids of what a fit trained shortly, the chosen one first; none where it did not. Raises UsageError as above."""
    found = _read(folder.path / BODIES_FILE) or []
    try:
        return [str(each["arch_id"]) for each in found]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{folder.path / BODIES_FILE} is damaged: {error!r}") from None


def _read(path: Location) -> Any:
    if not path.is_file():
        return None
    try:
        return parse_json(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({first_line(error)})") from None


def _rival_line(each: Mapping[str, Any]) -> list[str]:
    low, high = each["test_acc_ci95"]
    ahead = ""
    if each["ahead"] is not None:
        ahead = f"{each['ahead']:+.1f} ({each['ahead_ci95'][0]:+.1f} to {each['ahead_ci95'][1]:+.1f})"
    sizes = ["" if each[name] is None else f"{each[name]:.1f}" for name in ("mbytes", "ms")]
    params = "" if each["params"] is None else format_count(each["params"])
    return [each["title"], f"{each['test_acc']:.1f}", f"{low:.1f} to {high:.1f}", ahead, params, *sizes]


def _cut_line(each: Mapping[str, Any]) -> list[str]:
    return [each["stem"], f"{each['cv_acc']:.1f}", f"{each['test_acc']:.1f}", format_count(each["params"])]


def _way_line(each: Mapping[str, Any]) -> list[str]:
    figures = (f"{each['val_acc']:.1f}", f"{each['log_likelihood']:.3f}", f"{each['behind']:.1f}")
    return [each["augmentation"], each["loss"], each.get("setting", "as planned"), *figures]


def _body_line(each: Mapping[str, Any]) -> list[str]:
    figures = (f"{each['val_acc']:.1f}", f"{each['log_likelihood']:.3f}", f"{each['behind']:.1f}")
    return [each["arch_id"], each["role"], format_count(each["params"]), *figures]


def _ranks_by(config: RunConfig) -> dict[str, str]:
    return {"name": config.score.name, "prior": config.score.prior}
