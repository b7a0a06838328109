"""Architectures as Ray Tune knows trials: for its ResultGrid, and for its callbacks.

Tune's trials are workers here, which read batch after batch (scoring.py), since a trial costs Tune twelve milliseconds.
What Tune offers for trials, it offers for architectures through this module: each is a trial whose config is the
architecture and that had one result, its readings and its score. Nothing of it runs anywhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ray import tune
from ray.tune.callback import CallbackList
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, TBXLoggerCallback

from tvt_ray.cluster import ray_patches
from tvt_ray.errors import RunError, UsageError
from tvt_ray.scoring.rows import Row
from tvt_ray.storage.locations import Location, RemotePath, first_line

ResultGrid: TypeAlias = tune.ResultGrid
FOLDER = "tune"  # of a run: what callbacks write, a folder for each architecture


def _mlflow() -> tune.Callback:
    """Where to: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback()


# name -> builder of a Tune callback, for `search.callbacks`; it may raise ImportError. Each is a row in `CALLBACKS`.
CALLBACKS: dict[str, Callable[[], tune.Callback]] = {
    "json": JsonLoggerCallback,
    "csv": CSVLoggerCallback,
    "tensorboard": TBXLoggerCallback,
    "mlflow": _mlflow,
}


def check_callbacks(names: Sequence[str]) -> None:
    """Raises ValueError, which lists the choices, for a name that is no row of CALLBACKS."""
    for name in names:
        if name not in CALLBACKS:
            raise ValueError(f"unknown callback {name!r}; choices: {', '.join(CALLBACKS)}")


def make_callbacks(names: Sequence[str]) -> list[tune.Callback]:
    """Those of CALLBACKS that are named. Raises UsageError for one whose package is not installed."""
    made = []
    for name in names:
        try:
            made.append(CALLBACKS[name]())
        except ImportError as error:
            raise UsageError(f"search.callbacks {name!r} needs a package: {first_line(error)}") from None
    return made


class ArchTrial(Trial):  # type: ignore[misc]
    """An architecture that was read: its id, and as config what was chosen."""

    def __init__(self, row: Row, storage: Any = None) -> None:
        """`storage`: where Tune's loggers write for it; None: nowhere."""
        super().__init__(
            "architecture", config=dict(row.arch), evaluated_params=dict(row.arch), trial_id=row.arch_id,
            storage=storage, stub=True, trial_name_creator=_name, trial_dirname_creator=_name,
        )  # fmt: skip
        self.error = row.error

    def finish(self, result: Mapping[str, Any]) -> None:
        """The one result is in."""
        self.update_last_result(dict(result))
        self.set_status(Trial.ERROR if self.error else Trial.TERMINATED)

    def get_error(self) -> TuneError | None:
        """Of a failed row."""
        return TuneError(self.error) if self.error else None

    def get_pickled_error(self) -> None:
        """There is none."""

    @property
    def path(self) -> str | None:
        """Where loggers wrote of it."""
        return self.storage.trial_fs_path if self.storage and self.storage.trial_dir_name else None


def _name(trial: Trial) -> str:
    return str(trial.trial_id)


def result_of(row: Row, score: float | None) -> dict[str, Any]:
    """What Tune has of a trial's last result: readings, costs and the score, beside Tune's own keys."""
    known = {"score": score} if score is not None else {}
    return {
        **row.values,
        **known,
        "shape": row.shape,
        "searcher": row.searcher,
        "device": row.device,
        "trial_id": row.arch_id,
        "config": dict(row.arch),
        "training_iteration": 1,
        "time_this_iter_s": row.seconds,
        "time_total_s": row.seconds,
        "timestamp": int(time.time()),
        "done": True,
    }


def result_grid(rows: Sequence[Row], score: Callable[[Row], float | None], folder: Location) -> ResultGrid:
    """The rows of a run as Tune's results: a trial per architecture, `score` as its metric, to be maximised.

    `folder`: the run's. Raises UsageError where there are no rows.
    """
    if not rows:
        raise UsageError(f"{folder} holds no rows yet")
    trials = []
    for row in rows:
        trial = ArchTrial(row)
        trial.finish(result_of(row, score(row)))
        trials.append(trial)
    filesystem, path = (folder.filesystem, folder.path) if isinstance(folder, RemotePath) else (None, str(folder))
    return ray_patches.grid_of(trials, path, filesystem)


def check_stopper(stop: Any) -> None:
    """Raises UsageError for what cannot end a search."""
    if not (stop is None or isinstance(stop, tune.Stopper)):
        raise UsageError(
            f"stop must be a ray.tune.Stopper, not {type(stop).__name__}: an architecture has one result, after which "
            "no condition can stop it; an ExperimentPlateauStopper or a TimeoutStopper ends the search"
        )


class Audience:
    """Tune callbacks, and a stopper, that hear of each architecture as of a trial with one result, a batch at a time.

    Of `trials` they are given those of the batch. Tune's loggers write below `tune/` of the run folder.
    """

    def __init__(self, callbacks: Sequence[tune.Callback], storage: Any, stopper: tune.Stopper | None = None) -> None:
        self._callbacks, self._storage, self._stopper = CallbackList(list(callbacks)), storage, stopper
        self._iteration, self._last = 0, list[ArchTrial]()
        self.end_reason: str | None = None  # of the stopper

    @classmethod
    @contextlib.contextmanager
    def gathered(
        cls,
        callbacks: Sequence[tune.Callback],
        folder: Location,
        num_samples: int,
        stopper: tune.Stopper | None = None,
    ) -> Iterator[Audience]:
        """Set up, and told of the end. Raises UsageError where a callback cannot be set up, and RunError where one
        fails at the end.
        """
        if not callbacks:
            yield cls((), None, stopper)
            return
        storage = ray_patches.trial_storage(str(folder), FOLDER)
        audience = cls(callbacks, storage, stopper)
        try:
            audience._callbacks.setup(num_samples=num_samples, total_num_samples=num_samples)
        except Exception as error:  # whatever a callback raises
            why = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"search.callbacks cannot be set up: {why}") from None
        try:
            yield audience
        finally:
            audience._end()

    def tell(self, rows: Sequence[Row], score: Callable[[Row], float | None]) -> None:
        """Rows that were scored. Raises RunError where a callback or the stopper fails."""
        if self._storage is not None:
            self._call_back(rows, score)
        if self._stopper is not None and self.end_reason is None:
            self._ask(self._stopper, rows, score)

    def _ask(self, stopper: tune.Stopper, rows: Sequence[Row], score: Callable[[Row], float | None]) -> None:
        """As Tune asks one: about each result, then whether all should end."""
        with _failing("stop"):
            for row in rows:
                if row.error is None:
                    stopper(row.arch_id, result_of(row, score(row)))
            if stopper.stop_all():
                self.end_reason = f"{type(stopper).__name__} ended it"

    def _call_back(self, rows: Sequence[Row], score: Callable[[Row], float | None]) -> None:
        self._iteration += 1
        self._last = trials = [ArchTrial(row, self._storage) for row in rows]
        info = {"iteration": self._iteration, "trials": trials}
        with _failing("a callback of search.callbacks"):
            self._callbacks.on_step_begin(**info)
            for row, trial in zip(rows, trials, strict=True):
                trial.init_local_path()
                trial.set_status(Trial.RUNNING)
                self._callbacks.on_trial_start(**info, trial=trial)
                result = result_of(row, score(row))
                if row.error is None:
                    self._callbacks.on_trial_result(**info, trial=trial, result=result)
                trial.finish(result)
                ended = self._callbacks.on_trial_error if row.error else self._callbacks.on_trial_complete
                ended(**info, trial=trial)
            self._callbacks.on_step_end(**info)
            ray_patches.keep_files(self._storage)

    def _end(self) -> None:
        with _failing("a callback of search.callbacks"):
            self._callbacks.on_experiment_end(trials=self._last)
            ray_patches.keep_files(self._storage, wait=True)


@contextlib.contextmanager
def _failing(who: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a callback raises
        raise RunError(f"{who} failed: {type(error).__name__}: {first_line(error)}") from error
