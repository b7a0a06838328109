"""A teacher trained on the cluster's GPU, where the driver's machine has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import torch

from tvt_ray.cluster.connection import connected, num_gpus, resolve_address
from tvt_ray.cluster.slots import pick_device
from tvt_ray.data.splits import Dataset
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import say
from tvt_ray.storage.locations import Location, RemotePath
from tvt_ray.teachers.provide import Trainer
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.training import TeacherTraining, train_teacher


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
            job = _train.options(max_retries=max_failures)
            reachable = state_file if isinstance(state_file, RemotePath) else None
            result: tuple[Teacher, float] = ray.get(
                job.remote(settings, training, _portable(data), reachable, list(plugins))
            )
            return result

    return train


def _portable(data: Dataset) -> Dataset:
    """What a training needs, without this machine's disk."""
    train, val = data.train.portable(), data.val.portable()
    return Dataset(data.name, train, val, val, data.class_names)


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
