"""Report: rows that are there in another order, which whoever looks at the run afterwards sees."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.refining.learned import Learned
from tvt_ray.report.page import Found, write_report
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import Run
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import MEASURED
from tvt_ray.storage.locations import Location, as_location, first_line
from tvt_ray.storage.patience import check_folder
from tvt_ray.strict import parse_json
from tvt_ray.verbs.session import Session
from tvt_ray.vits.budget import format_count

# What a fit writes beside the search (verbs/rivals.py, cuts.py, choices.py, bodies.py, labels.py).
RIVALS_FILE, CUTS_FILE, CHOICES_FILE, BODIES_FILE = "rivals.json", "cuts.json", "choices.json", "bodies.json"
LABELS_FILE = "labels.json"


def report(run: Run | Location | str, *, score: str | None = None, out: Location | str | None = None) -> Ranking:
    """A run's rows in order, by another score if asked, from what was read; report and top list are written anew.

    A score that is given becomes the run's, for distil and whoever comes after. `out`: the page goes there (.html), and
    the run stays as it is. Where its folder cannot be written to, a line says so, and nothing is written. Raises
    UsageError where there is no run, or no rows, or where the score is made of what was not read.
    """
    return reported(run, score, out)[0]


def reported(
    run: Run | Location | str, score: str | None = None, out: Location | str | None = None
) -> tuple[Ranking, Location | None]:
    """As `report`, with where the page is; None: it could not be written."""
    folder = (run if isinstance(run, Run) else Run.load(run)).folder
    stored = folder.config()
    config = stored if score is None else stored.ranked_by(score)
    page = _page_of(folder, out)
    rows = folder.rows().read()
    if not rows:
        raise UsageError(f"run {folder.path} has no rows yet")
    if page != folder.report_file:
        return _Order.of(folder, config, rows).write_page(page), page
    with folder.lock() if config.score != stored.score else contextlib.nullcontext():
        return write_order(folder, config, rows), page


def _page_of(folder: RunFolder, out: Location | str | None) -> Location | None:
    """Where a report goes; None, after a line, where the run's folder cannot be written to. Raises UsageError."""
    if out is not None:
        page = as_location(out)
        if not page.name.endswith(".html"):
            raise UsageError(f"--out ends in .html; got {page.name}")
        check_folder(page.parent)
        return page
    try:
        check_folder(folder.path)
    except UsageError as error:
        say(f"no report is written: {error}; --out FILE.html writes one elsewhere")
        return None
    return folder.report_file


def settle_score(session: Session) -> None:
    """Ranks anew where the session's score is not the run's."""
    if _ranks_by(session.folder.config()) != _ranks_by(session.config):
        write_order(session.folder, session.config, session.rows)


def write_order(folder: RunFolder, config: RunConfig, rows: Sequence[Row]) -> Ranking:
    """Config, top list and report, all by the config's score."""
    order, stored = _Order.of(folder, config, rows), folder.config()
    if _ranks_by(stored) != _ranks_by(config):
        folder.claim(stored.with_(score=_ranks_by(config)))
    folder.write_top(order.ranking, config.space)
    return order.write_page(folder.report_file)


@dataclass(frozen=True)
class _Order:
    """A run's rows by a config's score."""

    folder: RunFolder
    config: RunConfig
    rows: Sequence[Row]
    learned: Learned | None
    ranking: Ranking

    @classmethod
    def of(cls, folder: RunFolder, config: RunConfig, rows: Sequence[Row]) -> _Order:
        learned = folder.learned(config.score, rows) if config.score.name == MEASURED else None
        return cls(folder, config, rows, learned, learned.ranking if learned else folder.ranking(config.score, rows))

    def write_page(self, page: Location | None) -> Ranking:
        """The ranking, after its report was written, where it has a place."""
        if page is not None:
            write_report(page, self.rows, self.ranking, self.config, self.learned, found_by_fit(self.folder))
        return self.ranking


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
