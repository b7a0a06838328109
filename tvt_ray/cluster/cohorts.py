"""Cohorts as Ray actors: students train side by side to a rung, and wait there for what is decided next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import ray

from tvt_ray.cluster.board import TrainingBoard
from tvt_ray.cluster.cohort_worker import CohortWorker, state_name
from tvt_ray.cluster.connection import driver_node
from tvt_ray.cluster.settings import ClusterSettings
from tvt_ray.cluster.slots import allot_cohorts
from tvt_ray.cluster.training import POLL_SECONDS, root_cause
from tvt_ray.distillation.cohort import DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import RunError
from tvt_ray.progress import Meter
from tvt_ray.storage.locations import Location

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
        self.shared = [ray.put(inputs)]
        self.board = TrainingBoard.options(scheduling_strategy=driver_node()).remote(folder)  # type: ignore[attr-defined]
        self.starting, self.workers = (
            dict[Any, Any](),
            list[Any](),
        )  # by what is there when one has; and those that have

    def __enter__(self) -> CohortPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in [*self.starting.values(), *self.workers, self.board]:
            ray.kill(actor)

    def train(self, tasks: Sequence[DistillTask], epochs: int, meter: Meter, on_epoch: EpochHeard) -> None:
        """Trains each until so many epochs are behind it. `on_epoch` hears of all of them, of some more than once.

        Raises RunError where a cohort fails for good, after the others have ended.
        """
        self._grow(allot_cohorts(self.settings, self.num_students).jobs)
        by_name = {state_name(task): task for task in tasks}

        def hear(name: str, metrics: Mapping[str, float]) -> None:
            on_epoch(by_name[name], metrics)

        count = len(self.starting) + len(self.workers)
        failures = self._run(deque(self._cohorts(tasks, count)), epochs, meter, hear)
        if failures:
            first, reason = failures[0]
            ids = ", ".join(task.arch_id for task in first)
            cohorts = "a cohort" if len(failures) == 1 else f"{len(failures)} cohorts"
            raise RunError(f"{cohorts} failed; {ids}: {self._explain(reason)}")

    def _explain(self, error: Exception) -> str:
        if isinstance(error, ray.exceptions.ActorDiedError) and not error.actor_init_failed:
            return f"its worker died, and was started again {self.share.max_failures} times (cluster.max_failures)"
        return root_cause(error)

    def _grow(self, count: int) -> None:
        """Up to as many workers as fit the cluster by now; they are started again as often as trainings are."""
        resources = {"num_cpus": self.share.cpus, "num_gpus": self.share.gpus}
        retries = {"max_restarts": self.share.max_failures, "max_task_retries": self.share.max_failures}
        for _ in range(count - len(self.starting) - len(self.workers)):
            made = CohortWorker.options(**resources, **retries)  # type: ignore[attr-defined]
            worker = made.remote(self.share, list(self.plugins))
            self.starting[worker.ready.remote()] = worker

    def _cohorts(self, tasks: Sequence[DistillTask], jobs: int) -> list[list[DistillTask]]:
        """Of one seed each, as many as keep all workers busy, none larger than it may be."""
        by_seed: dict[int, list[DistillTask]] = {}
        for task in tasks:
            by_seed.setdefault(task.settings.seed, []).append(task)
        cohorts = []
        for same in by_seed.values():
            count = min(len(same), max(jobs, -(-len(same) // self.size)))
            cohorts += [same[first::count] for first in range(count)]
        return cohorts

    def _run(
        self, waiting: deque[list[DistillTask]], epochs: int, meter: Meter, hear: Callable[..., None]
    ) -> list[tuple[list[DistillTask], Exception]]:
        """The cohorts that failed, and why. One that waits goes to the first worker that is there and free."""
        idle, running = list(self.workers), dict[Any, tuple[Any, list[DistillTask]]]()
        failures: list[tuple[list[DistillTask], Exception]] = []
        never_came: Exception = RunError("no worker is left")
        while running or (waiting and (idle or self.starting)):
            while waiting and idle:
                worker, cohort = idle.pop(0), waiting.popleft()
                running[worker.train.remote(self.shared, self.board, cohort, epochs)] = worker, cohort
            for ref in ray.wait([*running, *self.starting], timeout=POLL_SECONDS)[0]:
                worker, cohort = running.pop(ref, (self.starting.get(ref), []))
                error = self._collect(ref, hear)
                if self.starting.pop(ref, None) and not error:
                    self.workers.append(worker)
                elif error and not cohort:
                    never_came = error
                elif error:
                    failures.append((cohort, error))
                if not isinstance(error, ray.exceptions.ActorDiedError):
                    idle.append(worker)
                elif worker in self.workers:  # it died more often than it may be started again
                    self.workers.remove(worker)
            self._tell(meter, hear)
        return failures + [(cohort, never_came) for cohort in waiting]

    def _collect(self, ref: Any, hear: Callable[..., None]) -> Exception | None:
        """All epochs of a cohort that is there, or why it is not; nothing of a worker that has begun."""
        try:
            histories: Mapping[str, list[Mapping[str, float]]] = ray.get(ref) or {}
        except ray.exceptions.RayError as error:
            reason: Exception = error
            return reason
        for name, history in histories.items():
            for metrics in history:
                hear(name, metrics)
        return None

    def _tell(self, meter: Meter, hear: Callable[[str, Mapping[str, float]], None]) -> None:
        """Of epochs that have ended since the last time."""
        for name, metrics in ray.get(self.board.take.remote()):
            hear(name, metrics)
            done = f"epoch {metrics['epoch']:.0f}, val {metrics['val_acc']:.1f} %"
            meter.advance(1, f"{name} {done}, {metrics['images_per_s']:,.0f} images/s")
