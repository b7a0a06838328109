"""Distillation on Ray Train: one TorchTrainer job per student, several students at a time."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from safetensors.torch import save

from tvt_ray.cluster.connection import driver_node
from tvt_ray.cluster.metrics import record_epoch
from tvt_ray.cluster.quiet import quiet
from tvt_ray.cluster.slots import Allotment
from tvt_ray.distillation.distiller import Distiller, DistillInputs, DistillTask, WorkerContext
from tvt_ray.errors import RunError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter
from tvt_ray.storage.locations import Location, RemotePath

STATE_FILE = "state.pt"
CHECKPOINTS_FOLDER = "checkpoints"
POLL_SECONDS = 0.5
# Train's workers would each print every step of their start-up; the dashboard shows runs with state tracking on.
TRAIN_SETTINGS = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}


@dataclass(frozen=True)
class Trained:
    """What a finished job gives."""

    weights: bytes  # of the epoch that did best on validation, as safetensors: Train returns no tensors
    test_acc: float  # percent
    history: Sequence[Mapping[str, float]]  # one entry per epoch


@dataclass(frozen=True)
class Watch:
    """Who hears of trainings, in the driver's threads: of epochs as they end, and of students when they are done."""

    epoch: Callable[[str, Mapping[str, float]], None]  # (arch id, the epoch's metrics)
    student: Callable[[str, Trained], None]


@ray.remote(num_cpus=0)
class EpochBoard:
    """Where workers leave each epoch's metrics for whoever watches."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, float]]] = []

    def post(self, arch_id: str, metrics: dict[str, float]) -> None:
        """Called by workers."""
        self.entries.append((arch_id, metrics))

    def take(self) -> list[tuple[str, dict[str, float]]]:
        """What was posted since the last time."""
        entries, self.entries = self.entries, []
        return entries


def train_students(
    tasks: Mapping[str, DistillTask], inputs: DistillInputs, folder: Location, share: Allotment, watch: Watch
) -> None:
    """Trains every task (arch id -> task) as a Ray Train job.

    Checkpoints go to folder/<arch_id>/checkpoints; a job that finds one there goes on from it. Raises RunError when a
    job fails for good, after the others have ended.
    """
    epochs = next(iter(tasks.values())).settings.epochs
    with quiet({"ray.train": logging.ERROR}, TRAIN_SETTINGS):
        shared = ray.put(inputs)
        board = EpochBoard.options(scheduling_strategy=driver_node()).remote()  # type: ignore[attr-defined]
        pool = ThreadPoolExecutor(share.jobs, "distill")
        jobs = {
            arch_id: pool.submit(_run_job, arch_id, task, [shared], board, share, folder / arch_id, watch.student)
            for arch_id, task in tasks.items()
        }
        try:
            _watch(jobs, board, epochs, watch.epoch)
        except BaseException:  # Ctrl-C: jobs that wait do not start, and those that run end with their connection
            pool.shutdown(wait=False, cancel_futures=True)
            ray.shutdown()
            raise
        pool.shutdown()
    failures = {arch_id: error for arch_id, job in jobs.items() if (error := job.exception())}
    if failures:
        arch_id, error = next(iter(failures.items()))
        raise RunError(f"{len(failures)} of {len(jobs)} distillation jobs failed; {arch_id}: {_root_cause(error)}")


def _watch(
    jobs: Mapping[str, Future[None]], board: Any, epochs: int, on_epoch: Callable[[str, Mapping[str, float]], None]
) -> None:
    """Shows epochs as they end, until all jobs have."""
    with Meter("distilling", len(jobs) * epochs, "epochs") as meter:
        while True:
            finished = all(job.done() for job in jobs.values())
            for arch_id, metrics in ray.get(board.take.remote()):
                on_epoch(arch_id, metrics)
                done = f"epoch {metrics['epoch']:.0f} of {epochs}, val {metrics['val_acc']:.1f} %"
                meter.advance(1, f"{arch_id} {done}, {metrics['images_per_s']:,.0f} images/s")
            if finished:
                return
            time.sleep(POLL_SECONDS)


def _root_cause(error: BaseException) -> str:
    """The last line of the deepest message: Ray wraps a worker's exception in several of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _run_job(
    arch_id: str,
    task: DistillTask,
    shared: Sequence[Any],
    board: Any,
    share: Allotment,
    folder: Location,
    on_student: Callable[[str, Trained], None],
) -> None:
    from ray.train.torch import TorchTrainer

    resources = {"CPU": float(share.cpus), **({"GPU": share.gpus} if share.gpus else {})}
    config = {"arch_id": arch_id, "task": task, "shared": list(shared), "board": board, "share": share}
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=share.workers, use_gpu=share.gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name=CHECKPOINTS_FOLDER,  # the same name and path again is how Train finds the checkpoint to go on from
            **_storage(folder),
            failure_config=FailureConfig(max_failures=share.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    returned: Any = trainer.fit().return_value
    on_student(arch_id, Trained(**returned))


def _storage(folder: Location) -> dict[str, Any]:
    """As Ray Train names a place."""
    if isinstance(folder, RemotePath):
        return {"storage_path": folder.path, "storage_filesystem": folder.filesystem}
    return {"storage_path": str(folder.resolve())}


def _train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker. Each epoch ends with a checkpoint: the last state, which holds the best weights too."""
    task: DistillTask = config["task"]
    load_plugins(task.plugins)
    distiller = _make_distiller(task, ray.get(config["shared"][0]), config["share"])
    while not distiller.done:
        metrics = distiller.run_epoch()
        if distiller.worker.rank == 0:
            config["board"].post.remote(config["arch_id"], metrics)
            record_epoch(config["arch_id"], metrics)
        _report(metrics, distiller)
    test_acc = distiller.test()
    weights = save({key: value.cpu().contiguous() for key, value in distiller.best_student.items()})
    return {"weights": weights, "test_acc": test_acc, "history": distiller.history}


def _make_distiller(task: DistillTask, inputs: DistillInputs, share: Allotment) -> Distiller:
    """In the state of the last checkpoint, where there is one."""
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    torch.set_num_threads(max(1, share.cpus - share.loader_workers) if share.loader_workers < share.cpus else 1)
    worker = WorkerContext(device, context.get_world_rank(), context.get_world_size(), share.loader_workers)
    distiller = Distiller(task, inputs, worker, ray.train.torch.prepare_model)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as path:
            state = torch.load(Path(path) / STATE_FILE, map_location=device, weights_only=True)
            distiller.load_state_dict(state)
    return distiller


def _report(metrics: dict[str, float], distiller: Distiller) -> None:
    """All workers take part in a report; the first one brings the checkpoint."""
    if distiller.worker.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(distiller.state_dict(), Path(folder) / STATE_FILE)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
