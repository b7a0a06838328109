"""Distillation on Ray Train: one TorchTrainer job per student, several students at a time."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Train's workers would each print every step of their start-up; the dashboard shows runs with state tracking on.
os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from safetensors.torch import save

from tvt_ray.cluster import alive_nodes, driver_node
from tvt_ray.distill.loop import Distiller, DistillSettings, DistillTask, Materials, Place
from tvt_ray.errors import RunError, UsageError
from tvt_ray.metrics import record_epoch
from tvt_ray.progress import Meter
from tvt_ray.storage import Location, RemotePath

STATE_FILE = "state.pt"
CHECKPOINTS_FOLDER = "checkpoints"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Trained:
    """What a finished job gives."""

    weights: bytes  # of the epoch that did best on validation, as safetensors: Train returns no tensors
    test_acc: float  # percent
    history: Sequence[Mapping[str, float]]  # one entry per epoch


@ray.remote(num_cpus=0)
class EpochBoard:
    """Where workers leave each epoch's metrics for whoever watches."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, float]]] = []

    def post(self, arch_id: str, metrics: dict[str, float]) -> None:
        self.entries.append((arch_id, metrics))

    def take(self) -> list[tuple[str, dict[str, float]]]:
        entries, self.entries = self.entries, []
        return entries


@dataclass(frozen=True)
class Allotment:
    """What each worker of each job takes, and how many jobs run at a time."""

    cpus: int
    gpus: float
    jobs: int


def allot(settings: DistillSettings, num_jobs: int) -> Allotment:
    """Shares the connected cluster evenly among the jobs that run at a time; a worker fits on one node.

    Raises UsageError when the cluster cannot hold the workers of one job.
    """
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0)
    share = (1.0 if gpus else 0.0) if settings.gpus_per_worker is None else settings.gpus_per_worker
    share = share if gpus else 0.0
    workers = settings.num_workers
    if workers > cpus or (share and workers * share > gpus):
        raise UsageError(f"distill.num_workers {workers} needs more than the cluster has: {cpus} CPUs, {gpus:g} GPUs")
    fitting = min(num_jobs, int(gpus // (share * workers)) if share else num_jobs, cpus // workers)
    jobs = max(1, min(fitting, cpus // (workers * (settings.cpus_per_worker or 1))))
    fit = [node["Resources"] for node in alive_nodes() if node["Resources"].get("GPU", 0) >= share]
    largest_node = max((int(node.get("CPU", 0)) for node in fit), default=1)
    even_share = max(1, min(cpus // (jobs * workers), largest_node))
    return Allotment(settings.cpus_per_worker or even_share, share, jobs)


def train_students(
    tasks: Mapping[str, DistillTask],
    materials: Materials,
    folder: Location,
    share: Allotment,
    save: Callable[[str, Trained], None],
) -> None:
    """Trains every task (arch id -> task) as a Ray Train job and calls `save` for each student as it is finished.

    Checkpoints go to folder/<arch_id>/checkpoints; a job that finds one there goes on from it. Raises RunError when a
    job fails for good, after the others have ended.
    """
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    settings = next(iter(tasks.values())).settings
    shared = ray.put(materials)
    board = EpochBoard.options(scheduling_strategy=driver_node()).remote()  # type: ignore[attr-defined]
    pool = ThreadPoolExecutor(share.jobs, "distill")
    jobs = {
        arch_id: pool.submit(_run_job, arch_id, task, [shared], board, share, folder / arch_id, save)
        for arch_id, task in tasks.items()
    }
    try:
        _watch(jobs, board, settings.epochs)
    except BaseException:  # Ctrl-C: jobs that wait do not start, and those that run end with their cluster connection
        pool.shutdown(wait=False, cancel_futures=True)
        ray.shutdown()
        raise
    pool.shutdown()
    failures = {arch_id: error for arch_id, job in jobs.items() if (error := job.exception())}
    if failures:
        arch_id, error = next(iter(failures.items()))
        raise RunError(f"{len(failures)} of {len(jobs)} distillation jobs failed; {arch_id}: {_root_cause(error)}")


def _watch(jobs: Mapping[str, Future[None]], board: Any, epochs: int) -> None:
    """Shows epochs as they end, until all jobs have."""
    with Meter("distilling", len(jobs) * epochs, "epochs") as meter:
        while True:
            finished = all(job.done() for job in jobs.values())
            for arch_id, metrics in ray.get(board.take.remote()):
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
    save: Callable[[str, Trained], None],
) -> None:
    from ray.train.torch import TorchTrainer

    resources = {"CPU": float(share.cpus), **({"GPU": share.gpus} if share.gpus else {})}
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={
            "arch_id": arch_id,
            "task": task,
            "shared": list(shared),
            "board": board,
            "cpus": share.cpus,
        },
        scaling_config=ScalingConfig(
            num_workers=task.settings.num_workers, use_gpu=share.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=CHECKPOINTS_FOLDER,  # the same name and path again is how Train finds the checkpoint to go on from
            **_storage(folder),
            failure_config=FailureConfig(max_failures=task.settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    returned: Any = trainer.fit().return_value
    save(arch_id, Trained(**returned))


def _storage(folder: Location) -> dict[str, Any]:
    """As Ray Train names a place."""
    if isinstance(folder, RemotePath):
        return {"storage_path": folder.path, "storage_filesystem": folder.filesystem}
    return {"storage_path": str(folder.resolve())}


def _train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker. Each epoch ends with a checkpoint: the last state, which holds the best weights too."""
    task: DistillTask = config["task"]
    context, cpus = ray.train.get_context(), config["cpus"]
    loader_workers = task.settings.loader_workers
    loader_workers = cpus - 1 if loader_workers is None else loader_workers
    torch.set_num_threads(max(1, cpus - loader_workers) if loader_workers < cpus else 1)
    device = ray.train.torch.get_device()
    place = Place(device, context.get_world_rank(), context.get_world_size(), loader_workers)
    distiller = Distiller(task, ray.get(config["shared"][0]), place, ray.train.torch.prepare_model)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as path:
            state = torch.load(Path(path) / STATE_FILE, map_location=device, weights_only=True)
            distiller.load_state_dict(state)
    while not distiller.done:
        metrics = distiller.run_epoch()
        if place.rank == 0:
            config["board"].post.remote(config["arch_id"], metrics)
            record_epoch(config["arch_id"], metrics)
        _report(metrics, distiller)
    test_acc = distiller.test()
    weights = save({key: value.cpu().contiguous() for key, value in distiller.best_student.items()})
    return {"weights": weights, "test_acc": test_acc, "history": distiller.history}


def _report(metrics: dict[str, float], distiller: Distiller) -> None:
    """All workers take part in a report; the first one brings the checkpoint."""
    if distiller.place.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(distiller.state_dict(), Path(folder) / STATE_FILE)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
