"""A run as an object that one reads: rows, rankings, measurements and students."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import ARCH_FILE, DistilledStudent, load_student
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import Choice, RunFolder
from tvt_ray.runs.inputs import within_latency
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.storage.locations import Location, as_location
from tvt_ray.vits.budget import Budget

if TYPE_CHECKING:
    import pandas as pd

    from tvt_ray.cluster.trials import ResultGrid


@dataclass(frozen=True)
class SearchSummary:
    """What a search did: what `search --json` prints."""

    run_dir: str
    num_requested: int
    num_scored: int
    num_failed: int
    num_unique: int
    num_shapes: int  # different to scores; `best` and `pareto` hold one architecture of each
    wall_s: float  # everything, from dataset to report
    archs_per_s: float  # from the first architecture of the search to the last
    seconds: Mapping[str, float]  # what the time went into: data, teacher, ray, scoring
    readings: tuple[str, ...]  # what was read of each architecture
    score: str
    best: tuple[Choice, ...]
    pareto: tuple[Choice, ...]  # no others score higher at as few FLOPs
    num_workers: int  # processes that scored
    num_pids: int  # the same, by its old name in the contract
    num_nodes: int  # nodes of the cluster that they were on
    searchers: Mapping[str, int]  # how many of the rows each proposed
    note: str | None  # why fewer were scored than requested

    def to_json(self) -> dict[str, Any]:
        """As `search --json` prints it."""
        lists = {name: [each.to_json() for each in getattr(self, name)] for name in ("best", "pareto")}
        return {**dataclasses.asdict(self), **lists}


@dataclass(frozen=True)
class TrainedStudent:
    """A student of a run: what `distill --json` lists. Accuracies are top-1, in percent."""

    arch_id: str
    params: int
    epochs: int
    val_acc: float | None  # None: it learned from the images that validate
    test_acc: float
    teacher_test_acc: float
    path: str

    @classmethod
    def read(cls, path: Location) -> TrainedStudent:
        """From its folder. Raises UsageError where that holds no complete student, or does not say what it reached."""
        card = load_student(path).card
        params = card.space.cost(card.arch, len(card.class_names)).params
        try:
            epochs = int(card.results["epochs"])
            test, teacher = (float(card.results[name]) for name in ("test_acc", "teacher_test_acc"))
            val = None if card.results["val_acc"] is None else float(card.results["val_acc"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path / ARCH_FILE} does not say what the student reached: {error!r}") from None
        return cls(card.space.arch_id(card.arch), params, epochs, val, test, teacher, str(path))

    def load(self) -> DistilledStudent:
        """The student itself, ready to predict."""
        return load_student(self.path)


class Run:
    """A run folder, read when asked; it is not changed by reading. `summary` is what a search of this process did."""

    def __init__(self, path: Location, summary: SearchSummary | None = None) -> None:
        self.folder, self.summary = RunFolder(path), summary

    @classmethod
    def load(cls, path: Location | str) -> Run:
        """The run in a folder or at a URI. Raises UsageError where there is none, or one of another version."""
        run = cls(as_location(path))
        run.folder.config()
        return run

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @property
    def config(self) -> RunConfig:
        """The resolved config, as it is now: verbs may change what ranks."""
        return self.folder.config()

    @property
    def rows(self) -> pd.DataFrame:
        """A line per architecture: id, architecture (JSON), shape, costs, status, error and a column per reading."""
        return self.folder.rows().table().to_pandas()

    def result_grid(self, by: str | None = None) -> ResultGrid:
        """The rows as Ray Tune's results, a trial for each architecture: `get_best_result()`, `get_dataframe()`.

        Its metric is `score`, by any score (None: the run's own for untrained ones). 5,000 rows take some seconds.
        Raises UsageError where there are none, and for a score that they cannot be ranked by.
        """
        from tvt_ray.cluster.trials import result_grid  # Tune, which takes seconds to import

        scores = {each.row.arch_id: each.score for each in self.ranking(by or self.config.score.zero_cost).scored}
        return result_grid(self.folder.rows().read(), lambda row: scores.get(row.arch_id), self.folder.path)

    @property
    def measurements(self) -> pd.DataFrame:
        """What was trained: arch_id, epochs, seed, val_acc (percent), seconds, and a hash of the recipe."""
        return self.folder.measurements().table().to_pandas()

    def ranking(
        self,
        by: str | None = None,
        *,
        k: int | None = None,
        max_params: int | None = None,
        max_flops: int | None = None,
        max_latency_ms: float | None = None,
    ) -> Ranking:
        """The rows by any score (None: the run's own), best first, one of each shape, without scoring again.

        "measured" ranks by the accuracy that trainings of a few predict for all. `k`: so many at most.
        `max_latency_ms`: as the run's device profile predicts, else this machine's for its space. Raises UsageError
        for an unknown score, one that is made of what was not read, and where there is no profile.
        """
        try:
            ranking = self.folder.ranking(self.config.score if by is None else self.config.score.named(by))
        except ValueError as error:
            raise UsageError(str(error)) from None
        ranking = ranking.within(Budget(max_params=max_params, max_flops=max_flops))
        if max_latency_ms is not None:
            ranking = within_latency(ranking, max_latency_ms, self.folder)
        return ranking if k is None else ranking.head(k)

    @property
    def students(self) -> list[TrainedStudent]:
        """Those that are finished, the best on validation first, then those that learned from it."""
        folder = self.folder.distill_folder
        paths: Iterable[Location] = folder.iterdir() if folder.exists() else ()
        found = [TrainedStudent.read(path) for path in paths if (path / ARCH_FILE).is_file()]
        return sorted(found, key=lambda student: (-(student.val_acc or 0.0), student.arch_id))
