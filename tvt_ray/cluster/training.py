"""Distillation on Ray Train: a TorchTrainer job for each cohort of students, several jobs at a time."""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from safetensors.torch import save

from tvt_ray.cluster.board import POLL_SECONDS, root_cause, show_epochs, start_board
from tvt_ray.cluster.cohorts import smaller, train_until
from tvt_ray.cluster.connection import quiet
from tvt_ray.cluster.meeting import MeetingConfig
from tvt_ray.cluster.ray_patches import jobs_end_with_their_workers
from tvt_ray.cluster.slots import Allotment
from tvt_ray.distillation.cohort import Cohort, DistillInputs, Tasks, cohorts_of
from tvt_ray.errors import RunError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter
from tvt_ray.storage.locations import Location
from tvt_ray.training.learner import WorkerContext
from tvt_ray.vision_compat import ensure_torchvision

# Train's workers would each print every step of their start-up; the dashboard shows runs with state tracking on.
TRAIN_SETTINGS = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}


@dataclass(frozen=True)
class Trained:
    """A trained student, as its training gives it."""

    weights: bytes  # those that were kept, as safetensors: Train returns no tensors
    val_acc: float  # percent, of those weights
    test_acc: float  # percent
    history: Sequence[Mapping[str, float]]  # one entry per epoch


def train_students(
    tasks: Tasks,
    inputs: DistillInputs,
    folder: Location,
    share: Allotment,
    on_epoch: Callable[[str, Mapping[str, float]], None],
    on_student: Callable[[str, Trained], None],
) -> None:
    """Trains every task in as many Ray Train jobs as run at a time, each job's students side by side.

    `tasks`: each by its place below `folder`. What a student goes on from is checkpoint.pt there, which the next call
    finds. By that place `on_epoch` hears the metrics of each epoch, and `on_student` what a training gave, in the
    driver's threads. A cohort that runs out of memory goes on as two, one after the other. Raises RunError when a job
    fails for good, after the others have ended.
    """
    cohorts = cohorts_of(tasks, share.jobs)
    with (
        quiet({"ray.train": logging.ERROR}, TRAIN_SETTINGS),
        jobs_end_with_their_workers(),
        tempfile.TemporaryDirectory(prefix="tvt_train_") as own,
        Meter("distilling", sum(task.settings.epochs for task in tasks.values()), "epochs") as meter,
    ):
        shared, board, pool = ray.put(inputs), start_board(folder), ThreadPoolExecutor(share.jobs, "distill")
        jobs = [pool.submit(_run_jobs, cohort, [shared], board, share, own, on_student) for cohort in cohorts]
        try:
            show_epochs(board, meter, on_epoch, lambda: bool(wait(jobs, POLL_SECONDS).not_done))
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


def _run_jobs(cohort: Tasks, *job: Any) -> None:
    """A job, or several in turn where one of all does not fit into memory. Raises the first of their failures."""
    waiting, failures = deque([cohort]), list[Exception]()
    while waiting:
        part = waiting.popleft()
        try:
            _run_job(part, *job)
        except Exception as error:  # whatever a training raises
            parts = smaller(part, error)
            waiting.extendleft(reversed(parts))
            failures += [] if parts else [error]
    if failures:
        raise failures[0]


def _run_job(
    cohort: Tasks,
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
        torch_config=MeetingConfig(),
        scaling_config=ScalingConfig(num_workers=share.workers, use_gpu=share.gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name=names[0],
            storage_path=folder,  # of Train's own notes; students' states are the board's
            failure_config=FailureConfig(max_failures=share.max_failures),
        ),
    )
    returned: Any = trainer.fit().return_value
    for place, trained in returned.items():
        on_student(place, trained)


def _train_worker(config: dict[str, Any]) -> dict[str, Trained]:
    """Runs on every worker.

    Train hears of epochs whose states are kept: its controller takes a report every two seconds, and who reports again
    before that is held. All workers report, or none: they wait there for a fellow that failed.
    """
    tasks, share = config["tasks"], config["share"]
    load_plugins(next(iter(tasks.values())).plugins)
    ensure_torchvision()  # before a timm teacher is unpickled
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    worker = WorkerContext(device, context.get_world_rank(), context.get_world_size(), ray.train.torch.prepare_model)
    cohort = Cohort(list(tasks.values()), ray.get(config["shared"][0]), worker)
    cohort.use(cohort.division(share.cpus, share.loader_workers))
    train_until(cohort.num_epochs, cohort, tasks, config["board"], ray.train.report)
    test_accs = cohort.test()
    trained = {}
    for place, task in tasks.items():
        kept, history = cohort.learners[task.name].selection, cohort.learners[task.name].history
        weights = save({key: value.cpu().contiguous() for key, value in kept.state.items()})
        trained[place] = Trained(weights, kept.val_acc, test_accs[task.name], history)
    return trained
