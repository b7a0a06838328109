"""Every stage's beginning: what can be wrong is found out first, then data, teacher and probe are made ready."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import torch

from tvt_ray.cluster.teacher import cluster_trainer
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.decoded import decode_once
from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import check_augmentation
from tvt_ray.errors import UsageError
from tvt_ray.latency.predictor import fastest
from tvt_ray.progress import say
from tvt_ray.proxies import need_teacher
from tvt_ray.proxies.probe import build_probe, build_probe_images
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.spaces.base import Space
from tvt_ray.spaces.budget import Budget
from tvt_ray.spaces.limits import Limits
from tvt_ray.storage.locations import Location
from tvt_ray.teachers import check_settings
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.training.loaders import generators_as_they_were

WRITING_S = 2.0


def resolve(config: RunConfig) -> RunConfig:
    """The config with what its run reads written down, so that another score later does not change it."""
    score = config.score.model_copy(update={"proxies": config.score.to_read})
    return config.model_copy(update={"score": score})


def load_data(config: RunConfig) -> Dataset:
    """The dataset, every image of it decoded once, and what was found while reading it said once.

    Raises UsageError for whatever is wrong with it or the budget.
    """
    teacher = check_settings(config.teacher)
    if config.teacher_training.augment is not None:
        check_augmentation(config.teacher_training.augment, "teacher_training")
    data = load_dataset(config.data)
    check_budget(config.space, config.budget, data.num_classes)
    data = decode_once(data, max(config.space.image_size, teacher.image_size))
    say_notes(data)
    return data


_SAID: set[tuple[str, str]] = set()  # by this process: several stages of one call load the same data


def say_notes(data: Dataset) -> None:
    """Prints a dataset's notes, each once in a process."""
    for note in data.notes:
        if (data.name, note) not in _SAID:
            _SAID.add((data.name, note))
            say(f"data: {note}")


def check_budget(space: Space, budget: Budget, num_classes: int) -> None:
    """Raises UsageError when no architecture can meet the budget, saying the smallest (largest) there is."""
    small, large = space.smallest(num_classes), space.largest(num_classes)
    for name in ("params", "flops"):
        low, high = getattr(small, name), getattr(large, name)
        ceiling, floor = getattr(budget, f"max_{name}"), getattr(budget, f"min_{name}")
        if ceiling is not None and ceiling < low:
            raise UsageError(f"no architecture of this space meets max_{name} {ceiling:,}: the smallest has {low:,}")
        if floor is not None and floor > high:
            raise UsageError(f"no architecture of this space meets min_{name} {floor:,}: the largest has {high:,}")


def check_latency(limits: Limits) -> None:
    """Raises UsageError when no architecture is predicted to meet the limit, saying what the fastest takes."""
    limit = limits.budget.max_latency_ms
    if limit is None or limits.latency_ms is None:
        return
    least = limits.latency_ms(fastest(limits.space, limits.latency_ms))
    if least > limit:
        what = f"the fastest is predicted to take {least:.3g}"
        raise UsageError(f"no architecture of this space meets max_latency_ms {limit:g}: {what}")


def load_teacher(
    config: RunConfig, data: Dataset, kept_in: Location | None = None, ray_address: str | None = None
) -> Teacher | None:
    """The trained teacher, where anything that the run reads compares with it; trained now where there is none."""
    return provide_teacher(config, data, kept_in, ray_address) if need_teacher(config.score.to_read) else None


def provide_teacher(
    config: RunConfig, data: Dataset, kept_in: Location | None = None, ray_address: str | None = None
) -> Teacher:
    """The trained teacher; where there is none it is trained now, on a GPU of this machine or of the cluster, if any.

    `kept_in`: the run folder, which keeps a copy of one that was trained.
    """
    train = cluster_trainer(ray_address, config.plugins, config.cluster.max_failures)
    return get_teacher(config.teacher, config.teacher_training, data, kept_in, train)[0]


def make_task(config: RunConfig, data: Dataset, teacher: Teacher | None) -> ReadingTask:
    """The probe, what the teacher makes of it, and all else that a worker needs."""
    teacher_size = None if teacher is None else teacher.image_size
    images = build_probe_images(data.train, config.probe, config.space.image_size, teacher_size)
    return ReadingTask(
        config.space,
        data.num_classes,
        config.score.to_read,
        config.seed,
        build_probe(images, teacher, getattr(torch, config.probe.precision)),
        config.probe.num_inits,
        config.search.max_seconds_per_arch,
        config.plugins,
    )


class Stopwatch:
    """What the time goes into. `with clock("data"): …` adds to it; `seconds` has them all."""

    def __init__(self) -> None:
        self.start, self._seconds = time.perf_counter(), dict[str, float]()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """To what was measured otherwise."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @property
    def seconds(self) -> dict[str, float]:
        """By name, to the hundredth."""
        return {name: round(value, 2) for name, value in self._seconds.items()}

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.start


@contextlib.contextmanager
def on_sigterm(stop: Callable[[str], None]) -> Iterator[None]:
    """Calls `stop` with a reason where the process is asked to end; as Ctrl-C, it then ends in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop("the process was asked to end (SIGTERM)"))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_without_ray(reason: str, command: str) -> None:
    """Says what happened and how to go on, and ends the process, as Ray is about to: nothing waits for it any more.

    What was handed on for writing is on disk a moment later.
    """
    say(f"error: {reason}; what was written is kept; go on with: {command}")
    time.sleep(WRITING_S)
    os._exit(1)


@contextlib.contextmanager
def process_as_it_was() -> Iterator[None]:
    """Whatever the block does to torch's threads, random numbers and Optuna's log is undone at its end."""
    threads, optuna = torch.get_num_threads(), logging.getLogger("optuna")
    level = optuna.level
    with generators_as_they_were():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            optuna.setLevel(level)
