"""The one packing rule: what a scoring worker or a training takes, and how many of them the cluster holds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group

from tvt_ray.cluster.settings import ClusterSettings
from tvt_ray.errors import RunError, UsageError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter, say
from tvt_ray.scoring.reader import Reader, ReadingTask

DEFAULT_SHARE = 0.25
DEFAULT_COHORT_SHARE = 0.5
MEMORY_MARGIN = 0.85  # of a GPU's memory that its actors may plan with
CONTEXT_BYTES = 600 * 2**20  # what CUDA itself takes in each process, libraries and kernels included
MAX_ACTORS_PER_GPU = 16


@dataclass(frozen=True)
class Slots:
    """How many scoring actors run at a time, and what each takes."""

    count: int
    gpus_each: float  # 0: on the CPU
    limit: int | None = None  # at most so many, whatever joins the cluster

    def available(self) -> int:
        """How many of them the connected cluster holds by now."""
        return find_slots(self.gpus_each, self.limit).count

    @property
    def resources(self) -> dict[str, float]:
        """As Tune names them."""
        return {"cpu": 1, "gpu": self.gpus_each} if self.gpus_each else {"cpu": 1}


@dataclass(frozen=True)
class Job:
    """A task on a cluster: what is scored, where workers find it (`task_ref`, in the object store), and by how many."""

    task: ReadingTask
    task_ref: Any
    slots: Slots


def pack_job(settings: ClusterSettings, task: ReadingTask) -> Job:
    """Waits for the GPUs that the settings ask for, then packs the cluster."""
    task_ref = ray.put(task)
    wait_for_gpus(settings.min_gpus, settings.gpu_timeout_s)
    largest = task.space.to_json(task.space.largest_arch(task.num_classes))
    share = choose_share(settings.gpus_per_trial, [task_ref], largest)
    slots = find_slots(share, settings.scoring_workers)
    if share and not slots.gpus_each:
        say("gpus_per_trial is set, but the cluster has no GPU: scoring on the CPU")
    return Job(task, task_ref, slots)


def wait_for_gpus(wanted: int, timeout_s: float) -> None:
    """Asks the cluster for `wanted` GPUs and returns when so many have joined: an autoscaler starts machines for them.

    By placement groups, which go with this driver, killed or not; `autoscaler.sdk.request_resources` would outlive it
    and keep machines paid for. Raises RunError when they have not come in time.
    """
    if num_gpus() >= wanted:
        return
    groups = [placement_group([{"GPU": 1}]) for _ in range(wanted)]
    deadline, joined = time.monotonic() + timeout_s, 0
    try:
        with Meter("waiting for GPUs", wanted, "GPUs") as meter:
            while (now := num_gpus()) < wanted:
                meter.advance(max(now - joined, 0))
                joined = max(now, joined)
                if time.monotonic() > deadline:
                    raise RunError(
                        f"{now} of {wanted} GPUs (cluster.min_gpus) joined the cluster within {timeout_s:.0f} s "
                        "(cluster.gpu_timeout_s)"
                    )
                time.sleep(1)
    finally:
        for group in groups:
            remove_placement_group(group)


def num_gpus() -> int:
    """GPUs of the connected cluster, now."""
    return int(_resources()[1])


def _resources() -> tuple[int, float]:
    """CPUs and GPUs of the connected cluster, now."""
    found = ray.cluster_resources()
    return int(found.get("CPU", 1)), found.get("GPU", 0)


def find_slots(gpus_per_trial: float | None, limit: int | None = None) -> Slots:
    """Packs the connected cluster, with at most `limit` actors.

    A fraction counts per GPU, since no actor straddles two; None is DEFAULT_SHARE of a GPU.
    """
    cpus, gpus = _resources()
    share = DEFAULT_SHARE if gpus_per_trial is None else gpus_per_trial
    if not gpus or not share:
        fitting, share = cpus, 0
    else:
        fitting = min(_fitting(gpus, share) if share <= 1 else int(gpus / share), cpus)
    return Slots(max(min(fitting, limit or fitting), 1), share, limit)


def _fitting(gpus: float, share: float) -> int:
    """Processes that each take a share of one GPU."""
    return int(gpus) * math.floor(1 / share + 1e-6)


def pick_device() -> torch.device:
    """Ray shows an actor the GPUs it was given and no others.

    Raises RuntimeError where it was given one that torch cannot use: to compute on the CPU would hold the GPU idle. (A
    cluster may also have GPUs in name only, `ray start --num-gpus`; Ray knows no type of those.)
    """
    if not ray.get_gpu_ids():
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if any(name.startswith("accelerator_type:") for name in ray.cluster_resources()):
        raise RuntimeError(
            "this worker was given a GPU, but torch sees none: is it a CPU build, or the driver too old?"
        )
    return torch.device("cpu")


def choose_share(gpus_per_trial: float | Literal["auto"] | None, task_ref: Sequence[Any], arch: Any) -> float | None:
    """The share of a GPU for each actor: as given, or for "auto" as many to a GPU as its memory holds of `arch`.

    `arch`: the largest architecture, as JSON. `task_ref`: a list of one reference to the task.
    """
    if gpus_per_trial != "auto":
        return gpus_per_trial
    if not num_gpus():
        return 0.0
    measured: tuple[int, int] = ray.get(_measure_peak.remote(task_ref, arch))
    peak, total = measured
    if not total:
        return DEFAULT_SHARE
    count = max(1, min(int(MEMORY_MARGIN * total) // (peak + CONTEXT_BYTES), MAX_ACTORS_PER_GPU))
    taken = f"{peak / 2**20:,.0f} MiB of {total / 2**30:.0f} GiB"
    say(f"gpu: the largest architecture takes {taken}: {count} actors to a GPU")
    return 1 / count


@ray.remote(num_cpus=1, num_gpus=1)  # type: ignore[untyped-decorator]
def _measure_peak(task_ref: Sequence[Any], arch: Any) -> tuple[int, int]:
    """Bytes that scoring `arch` takes at its peak, and that the GPU has; zeros for a GPU in name only."""
    task: ReadingTask = ray.get(task_ref[0])
    load_plugins(task.plugins)
    device = pick_device()
    if device.type != "cuda":
        return 0, 0
    torch.cuda.reset_peak_memory_stats()
    Reader(task, device).readings(task.space.from_json(arch))
    return torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(device).total_memory


@dataclass(frozen=True)
class Allotment:
    """What each training takes: its workers, what each of them has, and how many trainings run at a time."""

    workers: int
    cpus: int
    gpus: float
    jobs: int
    loader_workers: int | None  # processes of each worker that load images; None: as measured there
    max_failures: int


def allot(settings: ClusterSettings, num_jobs: int) -> Allotment:
    """Shares the connected cluster evenly among the trainings that run at a time; a worker fits on one node.

    Raises UsageError when the cluster cannot hold the workers of one training.
    """
    (cpus, gpus), workers = _resources(), settings.training_workers
    share = (1.0 if settings.gpus_per_training_worker is None else settings.gpus_per_training_worker) if gpus else 0.0
    if workers > cpus or (share and workers * share > gpus):
        raise UsageError(
            f"cluster.training_workers {workers} needs more than the cluster has: {cpus} CPUs, {gpus:g} GPUs"
        )
    fitting = min(num_jobs, int(gpus // (share * workers)) if share else num_jobs, cpus // workers)
    jobs = max(1, min(fitting, cpus // (workers * (settings.cpus_per_training_worker or 1))))
    each = settings.cpus_per_training_worker or max(1, min(cpus // (jobs * workers), _largest_node(share)))
    return Allotment(workers, each, share, jobs, settings.loader_workers, settings.max_failures)


def allot_cohorts(settings: ClusterSettings, num_students: int) -> Allotment:
    """Shares the connected cluster among cohorts that train so many students: as many at a time as fit.

    On CPUs each has a core, or more where there are more than students: small models gain little from a second one.
    """
    cpus, gpus = _resources()
    share = (DEFAULT_COHORT_SHARE if settings.gpus_per_cohort is None else settings.gpus_per_cohort) if gpus else 0.0
    fitting = min(cpus, _fitting(gpus, share)) if share else cpus
    jobs = max(1, min(fitting, num_students))
    each = max(1, min(cpus // jobs, _largest_node(share)))
    return Allotment(1, each, share, jobs, settings.loader_workers, settings.max_failures)


def _largest_node(share: float) -> int:
    """CPUs of the largest node that has so much of a GPU."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = [node for node in nodes if node.get("GPU", 0) >= share]
    return max((int(node.get("CPU", 0)) for node in fit), default=1)
