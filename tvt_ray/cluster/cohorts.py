"""Cohorts as Ray actors: students train side by side to a rung, and wait there for what is decided next.

What a worker does with a cohort is the same in a Train job. Nothing of Ray Train is imported here, for which an actor
would wait half a second each time that one begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import ray
import torch

from tvt_ray.cluster.board import POLL_SECONDS, root_cause, show_epochs, start_board
from tvt_ray.cluster.metrics import record_epoch
from tvt_ray.cluster.settings import ClusterSettings
from tvt_ray.cluster.slots import Allotment, allot_cohorts, pick_device
from tvt_ray.distillation.cohort import Cohort, DistillInputs, Tasks, cohorts_of
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import RunError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter, say
from tvt_ray.scoring.faults import is_out_of_memory
from tvt_ray.storage.locations import Location
from tvt_ray.training.learner import Metrics, WorkerContext, from_bytes, to_bytes
from tvt_ray.training.pace import Division
from tvt_ray.vision_compat import ensure_torchvision

EpochHeard = Callable[[DistillTask, Mapping[str, float]], None]  # (whose, the epoch's metrics)


class CohortPool:
    """The cluster's cohort workers, for a `with` block; they stay between rungs, so that each starts once."""

    def __init__(
        self,
        inputs: DistillInputs,
        folder: Location,
        settings: ClusterSettings,
        num_students: int,
        cohort_size: int,
        plugins: Sequence[str] = (),
    ) -> None:
        """`folder`: below which states are kept. `num_students`: that mostly train at a time."""
        self.settings, self.num_students, self.size, self.plugins = settings, num_students, cohort_size, plugins
        self.share = allot_cohorts(settings, num_students)  # all workers take the same, so that one fits where one was
        self.shared, self.board = [ray.put(inputs)], start_board(folder)
        self.idle: list[Any] = []  # workers
        self.busy: dict[Any, tuple[Any, Tasks]] = {}  # by what is there when they are done; no tasks: with starting

    def __enter__(self) -> CohortPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in [*self.idle, *(worker for worker, _ in self.busy.values()), self.board]:
            ray.kill(actor)

    def train(self, tasks: Sequence[DistillTask], epochs: int, meter: Meter, on_epoch: EpochHeard) -> None:
        """Trains each until so many epochs are behind it. `on_epoch` hears of all of them, of some more than once.

        Raises RunError where a cohort fails for good, after the others have ended.
        """
        self._grow(allot_cohorts(self.settings, self.num_students).jobs)
        by_name = {state_name(task): task for task in tasks}
        waiting = deque(cohorts_of(by_name, len(self.idle) + len(self.busy), self.size))
        failures: list[tuple[Tasks, Exception]] = []

        def hear(name: str, metrics: Mapping[str, float]) -> None:
            on_epoch(by_name[name], metrics)

        def go_on() -> bool:
            while waiting and self.idle:  # the first that is there and free
                worker, cohort = self.idle.pop(0), waiting.popleft()
                self.busy[worker.train.remote(self.shared, self.board, cohort, epochs)] = worker, cohort
            for cohort, error in self._collect(hear):
                if halves := smaller(cohort, error):
                    waiting.extend(halves)
                else:
                    failures.append((cohort, error))
            return any(cohort for _, cohort in self.busy.values()) or bool(waiting and (self.idle or self.busy))

        show_epochs(self.board, meter, hear, go_on)
        reason = [error for cohort, error in failures if not cohort] or [RunError("no worker is left")]
        failed = [each for each in failures if each[0]] + [(cohort, reason[-1]) for cohort in waiting]
        if failed:
            first, error = failed[0]
            ids = ", ".join(task.arch_id for task in first.values())
            cohorts = "a cohort" if len(failed) == 1 else f"{len(failed)} cohorts"
            raise RunError(f"{cohorts} failed; {ids}: {self._explain(error)}")

    def _explain(self, error: Exception) -> str:
        if isinstance(error, ray.exceptions.ActorDiedError) and not error.actor_init_failed:
            return f"its worker died, and was started again {self.share.max_failures} times (cluster.max_failures)"
        return root_cause(error)

    def _grow(self, count: int) -> None:
        """Up to as many workers as fit the cluster by now; they are started again as often as trainings are."""
        resources = {"num_cpus": self.share.cpus, "num_gpus": self.share.gpus}
        retries = {"max_restarts": self.share.max_failures, "max_task_retries": self.share.max_failures}
        for _ in range(count - len(self.idle) - len(self.busy)):
            made = CohortWorker.options(**resources, **retries)  # type: ignore[attr-defined]
            worker = made.remote(self.share, list(self.plugins))
            self.busy[worker.ready.remote()] = worker, {}

    def _collect(self, hear: Callable[[str, Mapping[str, float]], None]) -> list[tuple[Tasks, Exception]]:
        """Waits a little for a worker. One that is done tells all epochs of its cohort: of which it failed, and why."""
        failures: list[tuple[Tasks, Exception]] = []
        for ref in ray.wait(list(self.busy), timeout=POLL_SECONDS)[0]:
            worker, cohort = self.busy.pop(ref)
            try:
                histories: Mapping[str, list[Mapping[str, float]]] = ray.get(ref) or {}
            except ray.exceptions.RayError as error:
                failures.append((cohort, error))
                if isinstance(error, ray.exceptions.ActorDiedError):
                    continue  # it died more often than it may be started again
                histories = {}
            self.idle.append(worker)
            for name, history in histories.items():
                for metrics in history:
                    hear(name, metrics)
        return failures


def smaller(cohort: Tasks, error: Exception) -> list[Tasks]:
    """Of a cohort that ran out of memory two, each of which goes on from its students' last states; and says so.

    None of a single student, or where something else failed.
    """
    names = list(cohort)
    half = len(names) // 2
    if not half or not is_out_of_memory(root_cause(error)):
        return []
    say(f"a cohort of {len(names)} students ran out of memory, and goes on as two")
    return [{name: cohort[name] for name in part} for part in (names[:half], names[half:])]


def state_name(task: DistillTask) -> str:
    """The folder of a training's state, below the pool's."""
    return f"{task.arch_id}.seed{task.settings.seed}"


@ray.remote
class CohortWorker:
    """Holds images and teacher, and trains one cohort after the other. It keeps nothing: states are the board's."""

    def __init__(self, share: Allotment, plugins: Sequence[str]) -> None:
        load_plugins(plugins)
        ensure_torchvision()  # before a timm teacher is unpickled
        torch.set_num_threads(1)
        self.share = share
        self.inputs: DistillInputs | None = None
        self.division: Division | None = None

    def ready(self) -> None:
        """Returns when this process has begun."""

    def train(self, shared: Sequence[Any], board: Any, tasks: Tasks, epochs: int) -> dict[str, list[Metrics]]:
        """Trains them, from where each is, until so many epochs are behind them: every epoch's metrics, by name.

        Called again after this process died, it goes on from what the board keeps. `shared`: a list of one reference
        to images and teacher, which are fetched once. (Of references in a constructor Ray warns, on the terminal.)
        """
        if self.inputs is None:
            self.inputs = ray.get(shared[0])
        device = pick_device()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # of the cohort before, which may have run out of memory
        cohort = Cohort(list(tasks.values()), self.inputs, WorkerContext(device))
        self.division = self.division or cohort.division(self.share.cpus, self.share.loader_workers)
        cohort.use(self.division)  # one cohort is as the next
        train_until(epochs, cohort, tasks, board)
        return {place: cohort.learners[task.name].history for place, task in tasks.items()}


def train_until(
    epochs: int,
    cohort: Cohort,
    tasks: Tasks,
    board: Any,
    on_keep: Callable[[dict[str, int]], object] = lambda metrics: None,
) -> None:
    """Trains a cohort from what the board keeps of it until so many epochs are behind all, and tells the board.

    Every worker of the cohort calls it; `on_keep` is called on each after states were kept. `tasks`: by their names on
    the board.
    """
    places, first = {task.name: place for place, task in tasks.items()}, cohort.worker.rank == 0
    stored: Mapping[str, bytes] = ray.get(board.states.remote(list(tasks)))
    cohort.load_state_dict({tasks[place].name: from_bytes(state) for place, state in stored.items()})

    def tell(metrics: Mapping[str, Metrics]) -> None:
        if first:
            ray.get(board.post.remote({places[name]: epoch for name, epoch in metrics.items()}))
            for name, epoch in metrics.items():
                record_epoch(name, epoch)

    def keep() -> None:
        if first:
            states = cohort.state_dict().items()
            ray.get(board.keep.remote({places[name]: to_bytes(state) for name, state in states}))
        on_keep({"epoch": cohort.epoch})

    cohort.train_until(epochs, tell, keep)
