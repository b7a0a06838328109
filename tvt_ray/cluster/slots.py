"""The one packing rule: what a scoring worker or a training takes, and how many of them the cluster holds."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group

from tvt_ray.cluster.packing import Node, fitting, most_cores
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
_APPLE = re.compile(r"accelerator_type:M\d(-\w+)?$")  # as Ray names its chips


@dataclass(frozen=True)
class Slots:
    """How many scoring actors run at a time, and what each takes."""

    count: int
    gpus_each: float  # 0: on the CPU
    limit: int | None = None  # at most so many, whatever joins the cluster

    def available(self) -> int:
        """How many of them the cluster holds by now; one at least, for which an autoscaler may bring a node."""
        count = fitting(nodes(), 1, self.gpus_each)
        return max(min(count, self.limit or count), 1)

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
    """GPUs of the connected cluster, now, that are computed on."""
    return int(sum(node.gpus for node in nodes()))


def nodes() -> list[Node]:
    """Those of the connected cluster, now. A Mac's GPU, which Ray counts, is none: proxies need float64.

    So a Mac computes on its CPU. AMD's cards are torch's `cuda`.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(each.get("CPU", 0)), 0.0 if _is_apple(each) else float(each.get("GPU", 0))) for each in alive]


def _is_apple(resources: Mapping[str, float]) -> bool:
    return any(_APPLE.match(name) for name in resources)


def find_slots(gpus_per_trial: float | None, limit: int | None = None) -> Slots:
    """Packs the connected cluster, with at most `limit` actors.

    A fraction counts per GPU, since no actor straddles two; None is DEFAULT_SHARE of a GPU. Raises UsageError where no
    node has so many GPUs.
    """
    here = nodes()
    share = _share(gpus_per_trial, DEFAULT_SHARE, here)
    count = fitting(here, 1, share)
    if share and not count:
        most = max(node.gpus for node in here)
        raise UsageError(
            f"cluster.gpus_per_trial {share:g}: no node of the cluster has so many GPUs and a core; the largest has "
            f"{most:g}"
        )
    return Slots(max(min(count, limit or count), 1), share, limit)


def _share(asked: float | None, default: float, here: Sequence[Node]) -> float:
    """Of a GPU, or GPUs, where there are any."""
    if not any(node.gpus for node in here):
        return 0.0
    return default if asked is None else asked


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
    peak, free = measured
    if not free:
        return DEFAULT_SHARE
    count = actors_to_a_gpu(peak, free)
    taken = f"{peak / 2**20:,.0f} MiB of the {free / 2**30:.1f} GiB that are free"
    say(f"gpu: the largest architecture takes {taken}: {count} actors to a GPU")
    return 1 / count


def actors_to_a_gpu(peak: int, free: int) -> int:
    """How many, where each takes `peak` bytes beside its context, and others have left `free` of the GPU's."""
    return max(1, min(int(MEMORY_MARGIN * free) // (peak + CONTEXT_BYTES), MAX_ACTORS_PER_GPU))


@ray.remote(num_cpus=1, num_gpus=1)  # type: ignore[untyped-decorator]
def _measure_peak(task_ref: Sequence[Any], arch: Any) -> tuple[int, int]:
    """Bytes that scoring `arch` takes at its peak, and that others have left of the GPU's; zeros for one in name only.

    Others are whoever else computes there, the driver among them, where it has trained a teacher.
    """
    task: ReadingTask = ray.get(task_ref[0])
    load_plugins(task.plugins)
    device = pick_device()
    if device.type != "cuda":
        return 0, 0
    free = torch.cuda.mem_get_info(device)[0] + CONTEXT_BYTES  # this process's own, which ends with it
    torch.cuda.reset_peak_memory_stats()
    Reader(task, device).readings(task.space.from_json(arch))
    return torch.cuda.max_memory_reserved(), free


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

    Raises UsageError when the cluster cannot hold the workers of one training, and for two on one GPU.
    """
    here, workers, cores = nodes(), settings.training_workers, settings.cpus_per_training_worker or 1
    share = _share(settings.gpus_per_training_worker, 1.0, here)
    if workers > 1 and 0 < share < 1:
        raise UsageError(
            f"cluster.gpus_per_training_worker {share:g} puts {workers} workers of a training on one GPU, which NCCL "
            "refuses: give each a whole one (1), or none (0), or train with one worker"
        )
    jobs = min(num_jobs, fitting(here, cores, share) // workers)
    if not jobs:
        cpus, gpus = sum(node.cpus for node in here), sum(node.gpus for node in here)
        raise UsageError(
            f"cluster.training_workers {workers} needs more than the cluster has: {cpus} CPUs, {gpus:g} GPUs on "
            f"{len(here)} node{'' if len(here) == 1 else 's'}, and a worker takes {cores} and {share:g} of one node"
        )
    each = settings.cpus_per_training_worker or most_cores(here, share, jobs * workers)
    return Allotment(workers, each, share, jobs, settings.loader_workers, settings.max_failures)


def allot_cohorts(settings: ClusterSettings, num_students: int) -> Allotment:
    """Shares the connected cluster among cohorts that train so many students: as many at a time as fit.

    On CPUs each has a core, or more where there are more than students: small models gain little from a second one.
    """
    here = nodes()
    share = _share(settings.gpus_per_cohort, DEFAULT_COHORT_SHARE, here)
    jobs = max(1, min(fitting(here, 1, share), num_students))
    cores = max(1, most_cores(here, share, jobs))
    return Allotment(1, cores, share, jobs, settings.loader_workers, settings.max_failures)
