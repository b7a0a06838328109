"""The run folder: where everything in it is, and how it is read and written."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say
from tvt_ray.refining.learned import MEASUREMENTS, Learned, Measurement, choose_recipe
from tvt_ray.runs import ownership
from tvt_ray.runs.config import FORMAT, RunConfig, difference, read_yaml, validate
from tvt_ray.runs.identity import DataIdentity, Rounds
from tvt_ray.scoring.ranking import Entry, Ranking, make_ranking
from tvt_ray.scoring.rows import ROWS, Row, verified
from tvt_ray.scoring.scores import MEASURED, Calibration, ScoreSettings
from tvt_ray.storage.locations import (
    Location,
    check_entries,
    shown,
    write_atomically,
)
from tvt_ray.storage.locks import FolderLock
from tvt_ray.storage.records import Records
from tvt_ray.version import __version__
from tvt_ray.vits.space import Space

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
NUM_LISTED = 10  # in top.json and on the terminal
CONFIG_HEADER = f"""\
# Every setting of a run, defaults included, as tvt_ray {__version__} resolved and wrote them.
# Go on with the run:  tvt search --run-dir THIS_FOLDER --resume
"""


@dataclass(frozen=True)
class Choice:
    """One of a ranking's best, as output lists it."""

    arch_id: str
    score: float
    params: int
    flops: int
    arch: dict[str, Any]
    latency_ms: float | None = None  # measured on this machine; None where no latency is limited
    predicted_latency_ms: float | None = None

    @classmethod
    def of(cls, ranked: Entry, space: Space) -> Choice:
        """Raises UsageError where the row's id is not that of its architecture."""
        row = verified(ranked.row, space)
        return cls(row.arch_id, ranked.score, row.params, row.flops, dict(row.arch))

    def to_json(self) -> dict[str, Any]:
        """As JSON lists it: without latencies where none is limited."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


class RunFolder:
    """Paths of a run, and the reading and writing of what they hold."""

    def __init__(self, path: Location) -> None:
        self.path = path
        self.config_file = path / "config.yaml"  # resolved
        self.data_file = path / "data.json"  # which images the rows are of: fingerprint, classes, counts, the probe
        self.calibration_file = path / "calibration.json"  # what scores are on the scale of
        self.latency_file = path / "latency.json"  # the device profile, where the budget limits latencies
        self.rows_folder = path / "rows"  # a row per architecture, in Parquet
        self.rounds_file = path / "refine.json"  # whom refine chose
        self.refine_folder = path / "refine"  # what students that were measured go on from
        self.distill_folder = path / "distill"  # a folder per student
        self.report_file = path / "report.html"

    def rows(self) -> Records[Row]:
        """What was read of each architecture."""
        return Records(self.rows_folder, ROWS)

    def measurements(self) -> Records[Measurement]:
        """What was trained, and how it did."""
        return Records(self.path / "measurements", MEASUREMENTS)

    def calibration(self) -> Calibration:
        """Raises UsageError where it is missing or damaged."""
        return Calibration.load(self.calibration_file)

    def ranking(self, by: ScoreSettings, rows: Sequence[Row] | None = None) -> Ranking:
        """The rows that can be ranked (None: those on disk), best first: what every verb goes by.

        Raises UsageError for a score that is made of what was not read.
        """
        return self.learned(by, rows).ranking if by.name == MEASURED else self._by_readings(by.name, rows)

    def _by_readings(self, score: str, rows: Sequence[Row] | None) -> Ranking:
        return make_ranking(self.rows().read() if rows is None else rows, score, self.calibration())

    def learned(self, by: ScoreSettings, rows: Sequence[Row] | None = None) -> Learned:
        """What the measurements say of the rows: of refine's recipe, else of the one that trained most students."""
        rounds, measurements = Rounds.load(self.rounds_file), self.measurements().read()
        chosen = choose_recipe(measurements, rounds.recipe if rounds else None)
        last = max((each.epochs for each in chosen), default=1)
        rungs = rounds.rungs if rounds else (last,)
        return Learned(self._by_readings(by.zero_cost, rows), self.config().space, chosen, rungs)

    def config(self) -> RunConfig:
        """The stored, resolved config. Raises UsageError when the folder holds no run, or one of another version."""
        if not self.config_file.is_file():
            raise UsageError(f"{self.path} holds no run: there is no config.yaml in it")
        check_entries(self.path)
        values = read_yaml(self.config_file)
        if values.get("format") != FORMAT:
            raise UsageError(
                f"{self.path} was written by another version of tvt_ray (format {values.get('format', 1)}, this one "
                f"reads {FORMAT}): search anew into another --run-dir"
            )
        plugins = values.get("plugins")
        self._check_plugins(list(map(str, plugins)) if isinstance(plugins, list) else ())  # no list is refused below
        return validate(values)

    def _check_plugins(self, names: Sequence[str]) -> None:
        """A run folder may be a stranger's, and a plugin is code: it names none that this process did not ask for."""
        unknown = [name for name in names if name not in sys.modules]
        if unknown:
            names = ", ".join(map(shown, unknown))
            if not all(_MODULE.fullmatch(name) for name in unknown):
                raise UsageError(f"{self.path} was made with plugins that are no Python modules: {names}")
            raise UsageError(
                f"{self.path} was made with the plugins {names}, which are code: where you trust them, "
                f"give --set plugins=[{','.join(unknown)}] (in Python: import {names})"
            )

    def check(self, config: RunConfig, resume: bool) -> None:
        """Raises UsageError unless the folder is free for a new run, or holds the one to resume."""
        if resume:
            changed = difference(config, self.config())
            if changed:
                raise UsageError(f"{self.path} holds another run: {changed}; choose another --run-dir")
        elif self.config_file.exists() or self.rows().exist():
            raise UsageError(
                f"run folder {self.path} already holds a run; --resume goes on with it, another --run-dir starts anew"
            )

    def claim(self, config: RunConfig) -> None:
        """Writes config.yaml: from here on the folder holds this run, ranked by its score."""
        text = (CONFIG_HEADER + config.to_yaml()).encode()
        before = self.config_file.read_bytes() if self.config_file.is_file() else None
        ownership.sign(self.path, text, before)
        write_atomically(self.config_file, text)

    def config_for(self, asked: Mapping[str, Any]) -> RunConfig:
        """The stored config, for who reads what it names. `asked`: settings that the user gives now.

        Raises UsageError where the folder is a stranger's and names places that the user does not name again.
        """
        config = self.config()
        if not self.is_own:
            ownership.check_named(self.path, config, asked)
        return config

    @property
    def is_own(self) -> bool:
        """Whether this user made the run here, and its config is what was written then."""
        return ownership.is_own(self.path, self.config_file.read_bytes())

    def check_data(self, identity: DataIdentity) -> None:
        """Raises UsageError unless these are the images that the run is of, wherever they lie now."""
        stored = DataIdentity.load(self.data_file)
        if stored is None:  # an earlier version began the run
            say(f"{self.path} does not say which images it is of: they are taken to be those of {identity.dataset}")
        changed = stored and identity.difference(stored)
        if changed:
            raise UsageError(
                f"{self.path} holds a run on other images than {identity.dataset} has: {changed}; "
                "bring those back, or search anew into another --run-dir"
            )

    def keep_data(self, identity: DataIdentity) -> None:
        """Writes data.json, before anything that is of these images; `check_data` says whether it may be."""
        write_atomically(self.data_file, identity.to_json())

    def make(self) -> None:
        """Makes the folder where there is none. Raises UsageError where it cannot be made or written to."""
        probe = self.path / ".writable"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            check_entries(self.path)
            write_atomically(probe, b"")
            probe.unlink()
        except OSError as error:
            raise UsageError(f"run folder {self.path} cannot be made: {error.strerror or error}") from None
        except RunError as error:
            raise UsageError(f"run folder {self.path} cannot be made or written to: {error}") from None

    def lock(self) -> FolderLock:
        """`with` it no other driver works in the folder, whichever verb. Raises UsageError when one does."""
        return FolderLock(self.path)

    def write_top(self, ranking: Ranking, space: Space) -> None:
        """The best, and the Pareto front, one of each shape."""
        parts = {"best": ranking.top(NUM_LISTED), "pareto": ranking.front()}
        top = {name: [Choice.of(each, space).to_json() for each in part] for name, part in parts.items()}
        top |= {"score": ranking.by, "num_shapes": ranking.num_shapes}  # type: ignore[dict-item]
        write_atomically(self.path / "top.json", json.dumps(top, indent=1).encode())
