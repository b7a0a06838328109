"""Plain Ray tasks: a given list of architectures is read, and a teacher trained where the driver has no GPU."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch

from tvt_ray.cluster.connection import connected, resolve_address
from tvt_ray.cluster.slots import Job, num_gpus, pick_device
from tvt_ray.data.splits import Dataset
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter, say
from tvt_ray.scoring.faults import DeviceError
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.scoring.rows import Row
from tvt_ray.storage.locations import Location, RemotePath
from tvt_ray.teachers.provide import Trainer
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.training import TeacherTraining, train_teacher
from tvt_ray.vits import Arch

MAX_ARCHS_PER_TASK = 16  # so that what a killed call had read is not lost
MIN_TASKS_PER_SLOT = 4  # so that the last ones end at about the same time


@ray.remote  # type: ignore[untyped-decorator]
def _read_chunk(task: ReadingTask, archs: Sequence[Mapping[str, Any]]) -> list[Row]:
    torch.set_num_threads(1)
    load_plugins(task.plugins)
    try:
        return Reader(task, pick_device()).read_all([task.space.from_json(arch) for arch in archs])
    except DeviceError as error:  # Ray gives the process to the next task, and runs this one again in another
        say(f"a worker ends, since its device failed: {error}")
        os._exit(1)


def read_archs(job: Job, archs: Sequence[Arch], title: str, on_rows: Callable[[Sequence[Row]], None]) -> list[Row]:
    """Reads a given list of architectures on all slots, as plain Ray tasks: their rows, in the list's order.

    `on_rows` hears of rows as they arrive, in the order in which they do.
    """
    space, slots = job.task.space, job.slots
    size = min(math.ceil(len(archs) / (MIN_TASKS_PER_SLOT * slots.count)), MAX_ARCHS_PER_TASK)
    chunks = [[space.to_json(a) for a in archs[i : i + size]] for i in range(0, len(archs), size)]
    remote = _read_chunk.options(num_cpus=1, num_gpus=slots.gpus_each)
    waiting, running = deque(enumerate(chunks)), dict[Any, int]()
    rows: dict[int, list[Row]] = {}
    with Meter(title, len(archs), "architectures") as meter:
        while waiting or running:
            while waiting and len(running) < slots.count:
                number, chunk = waiting.popleft()
                running[remote.remote(job.task_ref, chunk)] = number
            for ref in ray.wait(list(running))[0]:
                number = running.pop(ref)
                rows[number] = ray.get(ref)
                on_rows(rows[number])
                meter.advance(len(rows[number]))
    return [row for number in sorted(rows) for row in rows[number]]


def cluster_trainer(address: str | None, plugins: Sequence[str] = (), max_failures: int = 3) -> Trainer:
    """Trains here where there is a GPU or no other machine, else as a job on a GPU of the cluster at `address`.

    A job that dies begins again, `max_failures` times; in a bucket, where any node can reach it, its last state is
    gone on from.
    """

    def train(
        settings: TeacherSettings, training: TeacherTraining, data: Dataset, state_file: Location | None
    ) -> tuple[Teacher, float]:
        if torch.cuda.is_available() or resolve_address(address) == "local":
            return train_teacher(settings, training, data, state_file)
        with connected(address):
            if not num_gpus():
                return train_teacher(settings, training, data, state_file)
            say(f"teacher: {settings.name} is trained on a GPU of the cluster")
            val, reachable = data.val.portable(), state_file if isinstance(state_file, RemotePath) else None
            portable = Dataset(data.name, data.train.portable(), val, val, data.class_names)  # without this disk
            job = _train.options(max_retries=max_failures).remote(settings, training, portable, reachable, plugins)
            result: tuple[Teacher, float] = ray.get(job)
            return result

    return train


@ray.remote(num_cpus=1, num_gpus=1)  # type: ignore[untyped-decorator]
def _train(
    settings: TeacherSettings,
    training: TeacherTraining,
    data: Dataset,
    state_file: Location | None,
    plugins: Sequence[str],
) -> Any:
    load_plugins(plugins)
    pick_device()  # raises where the GPU that was given is none that torch can use
    torch.set_num_threads(1)
    return train_teacher(settings, training, data, state_file)
