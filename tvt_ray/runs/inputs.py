"""What a run works on, from its config: images, limits, and the task of reading an architecture."""

from __future__ import annotations

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.decoded import decode_once
from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import check_augmentation
from tvt_ray.errors import UsageError
from tvt_ray.latency.predictor import fastest
from tvt_ray.latency.profile import DeviceProfile
from tvt_ray.progress import say
from tvt_ray.proxies.probe import build_probe
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.latency import limits_of
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.teachers import check_settings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.vits.budget import Budget, Limits
from tvt_ray.vits.space import Space


def load_data(config: RunConfig, read: Dataset | None = None) -> Dataset:
    """The dataset, every image of it decoded once, and its notes logged. `read`: the same, as it was read before.

    Raises UsageError for whatever is wrong with it, the teacher's settings or the budget.
    """
    teacher = check_settings(config.teacher)
    if config.teacher_training.augment is not None:
        check_augmentation(config.teacher_training.augment, "teacher_training")
    data = load_dataset(config.data) if read is None else read
    check_budget(config.space, config.budget, data.num_classes)
    data = decode_once(data, max(config.space.image_size, teacher.image_size))
    log_notes(data)
    return data


def log_notes(data: Dataset) -> None:
    """What a person should know of how a dataset was read."""
    for note in data.notes:
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


def checked_limits(config: RunConfig, num_classes: int, profile: DeviceProfile | None) -> Limits:
    """The config's budget with what predicts latencies. `profile`: as `find_profile` gives it.

    Raises UsageError when no architecture is predicted to meet the latency, saying what the fastest takes.
    """
    limits = limits_of(config, num_classes, profile)
    limit = limits.budget.max_latency_ms
    if limit is not None and limits.latency_ms is not None:
        least = limits.latency_ms(fastest(limits.space, limits.latency_ms))
        if least > limit:
            what = f"the fastest is predicted to take {least:.3g}"
            raise UsageError(f"no architecture of this space meets max_latency_ms {limit:g}: {what}")
    return limits


def make_task(config: RunConfig, data: Dataset, teacher: Teacher | None) -> ReadingTask:
    """The probe, what the teacher makes of it, and all else that a worker needs."""
    return ReadingTask(
        config.space,
        data.num_classes,
        config.score.to_read,
        config.seed,
        build_probe(data.train, config.probe, config.space.image_size, teacher),
        config.probe.num_inits,
        config.search.max_seconds_per_arch,
        config.plugins,
    )
