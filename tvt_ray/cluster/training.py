"""Distillation on Ray Train: a TorchTrainer job for each cohort of students, several jobs at a time."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from safetensors.torch import save

from tvt_ray.cluster.board import TrainingBoard
from tvt_ray.cluster.cohort_worker import divide_cpus, read_states, train_until
from tvt_ray.cluster.connection import driver_node
from tvt_ray.cluster.quiet import quiet
from tvt_ray.cluster.ray_patches import jobs_end_with_their_workers
from tvt_ray.cluster.slots import Allotment
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask, WorkerContext
from tvt_ray.errors import RunError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter
from tvt_ray.storage.locations import Location
from tvt_ray.vision_compat import ensure_torchvision

POLL_SECONDS = 0.5
# At least: Train's controller takes a report every two seconds, and who reports again before that is held.
SECONDS_BETWEEN_REPORTS = 5.0
# Train's workers would each print every step of their start-up; the dashboard shows runs with state tracking on.
TRAIN_SETTINGS = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}


@dataclass(frozen=True)
class Trained:
    """What a training gives for a student."""

    weights: bytes  # those that were kept, as safetensors: Train returns no tensors
    val_acc: float  # percent, of those weights
    test_acc: float  # percent
    history: Sequence[Mapping[str, float]]  # one entry per epoch


@dataclass(frozen=True)
class Watch:
    """Who hears of trainings, in the driver's threads: of epochs as they end, and of students when they are done."""

    epoch: Callable[[str, Mapping[str, float]], None]  # (the task's place, the epoch's metrics)
    student: Callable[[str, Trained], None]


def train_students(
    tasks: Mapping[str, DistillTask], inputs: DistillInputs, folder: Location, share: Allotment, watch: Watch
) -> None:
    """Trains every task in as many Ray Train jobs as run at a time, each job's students side by side.

    `tasks`: each by its place below `folder`. What a student goes on from is checkpoint.pt there, which the next call
    finds. Raises RunError when a job fails for good, after the others have ended.
    """
    cohorts = cohorts_of(tasks, share.jobs)
    with (
        quiet({"ray.train": logging.ERROR}, TRAIN_SETTINGS),
        jobs_end_with_their_workers(),
        tempfile.TemporaryDirectory(prefix="tvt_train_") as own,
    ):
        shared = ray.put(inputs)
        board = TrainingBoard.options(scheduling_strategy=driver_node()).remote(folder)  # type: ignore[attr-defined]
        pool = ThreadPoolExecutor(share.jobs, "distill")
        jobs = [pool.submit(_run_job, cohort, [shared], board, share, own, watch.student) for cohort in cohorts]
        try:
            _watch(jobs, board, sum(task.settings.epochs for task in tasks.values()), watch.epoch)
        except BaseException:  # Ctrl-C: jobs that wait do not start, and those that run end with their connection
            pool.shutdown(wait=False, cancel_futures=True)
            ray.shutdown()
            raise
        pool.shutdown()
    failures = [(cohort, error) for cohort, job in zip(cohorts, jobs, strict=True) if (error := job.exception())]
    if failures:
        cohort, error = failures[0]
        names = ", ".join(task.name for task in cohort.values())
        raise RunError(f"{len(failures)} of {len(jobs)} distillation jobs failed; {names}: {root_cause(error)}")


def cohorts_of(tasks: Mapping[str, DistillTask], count: int) -> list[dict[str, DistillTask]]:
    """Tasks by their places, in a multiple of `count` cohorts where there are so many; in each all have one seed."""
    by_seed: dict[int, list[str]] = {}
    for place, task in tasks.items():
        by_seed.setdefault(task.settings.seed, []).append(place)
    each = count // math.gcd(count, len(by_seed))  # so that none is left to train alone at the end
    parts = [places[first::each] for places in by_seed.values() for first in range(min(each, len(places)))]
    return [{place: tasks[place] for place in part} for part in parts]


def _watch(
    jobs: Sequence[Future[None]], board: Any, num_epochs: int, on_epoch: Callable[[str, Mapping[str, float]], None]
) -> None:
    """Shows epochs as they end, until all jobs have."""
    with Meter("distilling", num_epochs, "epochs") as meter:
        while True:
            finished = all(job.done() for job in jobs)
            for place, metrics in ray.get(board.take.remote()):
                on_epoch(place, metrics)
                done = f"epoch {metrics['epoch']:.0f}, val {metrics['val_acc']:.1f} %"
                name = place.rpartition("/")[2]
                meter.advance(1, f"{name} {done}, {metrics['images_per_s']:,.0f} images/s")
            if finished:
                return
            time.sleep(POLL_SECONDS)


def root_cause(error: BaseException) -> str:
    """The last line of the deepest message: Ray wraps a worker's exception in several of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _run_job(
    cohort: Mapping[str, DistillTask],
    shared: Sequence[Any],
    board: Any,
    share: Allotment,
    folder: str,
    on_student: Callable[[str, Trained], None],
) -> None:
    from ray.train.torch import TorchTrainer

    resources = {"CPU": float(share.cpus), **({"GPU": share.gpus} if share.gpus else {})}
    names = [task.name for task in cohort.values()]  # for who looks at the dashboard
    config = {"arch_ids": names, "tasks": dict(cohort), "shared": list(shared), "board": board, "share": share}
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=share.workers, use_gpu=share.gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name=names[0],
            storage_path=folder,  # of Train's own notes; students' states are the board's
            failure_config=FailureConfig(max_failures=share.max_failures),
        ),
    )
    returned: Any = trainer.fit().return_value
    for place, trained in returned.items():
        on_student(place, Trained(**trained))


def _train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker."""
    places: dict[str, str] = {task.name: place for place, task in config["tasks"].items()}
    tasks: list[DistillTask] = list(config["tasks"].values())
    board, share = config["board"], config["share"]
    load_plugins(tasks[0].plugins)
    ensure_torchvision()  # before a timm teacher is unpickled
    cohort = _make_cohort(tasks, ray.get(config["shared"][0]), share)
    cohort.load_state_dict(read_states(board, places, cohort.worker.device))
    divide_cpus(cohort, share)
    train_until(cohort, cohort.settings.epochs, board, places, told_seldom(cohort, ray.train.report))
    test_accs = cohort.test()
    return {
        places[name]: {
            "weights": save({key: value.cpu().contiguous() for key, value in learner.selection.state.items()}),
            "val_acc": learner.selection.val_acc,
            "test_acc": test_accs[name],
            "history": learner.history,
        }
        for name, learner in cohort.learners.items()
    }


def told_seldom(
    cohort: Cohort, report: Callable[[dict[str, int]], object], seconds: float = SECONDS_BETWEEN_REPORTS
) -> Callable[[dict[str, int]], None]:
    """For every epoch of a cohort: reports the last one, and of the others those that end `seconds` after the report
    before, by the first worker's clock. All workers report, or none: they wait there for a fellow that failed.
    """
    reported = time.monotonic()

    def tell(metrics: dict[str, int]) -> None:
        nonlocal reported
        if cohort.worker.agreed(cohort.done or time.monotonic() - reported >= seconds):
            report(metrics)
            reported = time.monotonic()

    return tell


def _make_cohort(tasks: Sequence[DistillTask], inputs: DistillInputs, share: Allotment) -> Cohort:
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    worker = WorkerContext(device, context.get_world_rank(), context.get_world_size(), ray.train.torch.prepare_model)
    return Cohort(tasks, inputs, worker)
