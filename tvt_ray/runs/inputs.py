"""What a run works on, from its config: images, limits and what predicts latencies, the task of reading a row."""

from __future__ import annotations

import json
import shlex

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.decoded import decode_once
from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import check_augmentation
from tvt_ray.errors import UsageError
from tvt_ray.latency.predictor import Predictor, fastest
from tvt_ray.latency.profile import DeviceProfile, default_path, load_profile, this_device
from tvt_ray.progress import say
from tvt_ray.proxies.probe import build_probe
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.scoring.rows import arch_of
from tvt_ray.storage.locations import Location
from tvt_ray.teachers import check_settings
from tvt_ray.teachers.provide import check_weights
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.vits.budget import Budget, Limits
from tvt_ray.vits.space import Space


def load_data(config: RunConfig, read: Dataset | None = None, kept_in: Location | None = None) -> Dataset:
    """The dataset, every image of it decoded once, and its notes logged. `read`: the same, as it was read before.

    `kept_in`: a run folder, which may hold a trained teacher. Raises UsageError for whatever is wrong with the dataset,
    the teacher's settings or the budget, and, before images are read, for a teacher whose weights are not to be had.
    """
    teacher = check_settings(config.teacher)
    check_weights(config.teacher, kept_in)
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
    if getattr(config.space, "depth", None) == (0,):
        raise UsageError("space.depth [0] has no blocks to search; name at least one block")
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


def find_profile(config: RunConfig, folder: RunFolder | None = None) -> DeviceProfile | None:
    """None where the budget has no latency. Else the copy that a run folder keeps, so that a run goes on as it began;
    else `budget.latency_profile`; else the one that was measured on this machine's CPU for the config's space.

    Raises UsageError where there is none, or it is damaged, of another space or lacks the batch size.
    """
    if config.budget.max_latency_ms is None:
        return None
    path = _profile_path(config, folder)
    profile = load_profile(path)
    profile.check_space(config.space, path)
    profile.batch(config.budget.latency_batch_size)
    return profile


def _profile_path(config: RunConfig, folder: RunFolder | None) -> Location:
    if folder is not None and folder.latency_file.is_file():
        return folder.latency_file
    if config.budget.latency_profile is not None:
        return config.budget.latency_profile
    path = default_path(this_device("cpu"), config.space)
    if not path.is_file():
        raise UsageError(
            f"max_latency_ms needs a latency profile of this space on this machine, and there is no {path}; "
            f"one is measured once, in minutes, by: {profile_command(config)}"
        )
    return path


def profile_command(config: RunConfig) -> str:
    """What measures a space, whichever flags it came from."""
    settings = [f"plugins=[{','.join(config.plugins)}]"] if config.plugins else []
    if config.space != RunConfig().space:
        settings.append(f"space={json.dumps(config.space.model_dump(mode='json'))}")
    size = config.budget.latency_batch_size
    sizes = f" --batch-size {size}" if size != 1 else ""
    return f"tvt profile{sizes}" + "".join(f" --set {shlex.quote(each)}" for each in settings)


def limits_of(config: RunConfig, num_classes: int, profile: DeviceProfile | None) -> Limits:
    """The config's budget with all that it needs; `profile`: as `find_profile` gives it."""
    if profile is None:
        return Limits(config.space, config.budget, num_classes)
    batch = profile.batch(config.budget.latency_batch_size)
    return Limits(config.space, config.budget, num_classes, Predictor.of(batch, config.space, num_classes))


def within_latency(ranking: Ranking, max_latency_ms: float, folder: RunFolder) -> Ranking:
    """The part of a run's ranking that is predicted to meet a limit. Raises UsageError where nothing predicts it."""
    config, identity = _limited(folder.config(), max_latency_ms), DataIdentity.load(folder.data_file)
    if identity is None:
        raise UsageError(f"{folder.path} does not say how many classes its students tell apart: there is no data.json")
    limits = limits_of(config, len(identity.class_names), find_profile(config, folder))
    inside = tuple(each for each in ranking.scored if limits.admit(arch_of(each.row, config.space)))
    return Ranking(ranking.by, inside)


def _limited(config: RunConfig, max_latency_ms: float) -> RunConfig:
    """With this limit alone."""
    if not max_latency_ms > 0:
        raise UsageError(f"max_latency_ms is more than 0; got {max_latency_ms:g}")
    kept = config.budget.model_dump(include={"latency_batch_size", "latency_profile"})
    return config.with_(budget=Budget(max_latency_ms=max_latency_ms, **kept))
