"""What a search would do, and how long it would take, from a few architectures read here and now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tvt_ray.data.splits import Dataset
from tvt_ray.planning.facts import measure_speeds
from tvt_ray.planning.recipe import Speeds, phases
from tvt_ray.proxies import need_teacher
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import checked_limits, find_profile, load_data, make_task
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.scores import calibration_archs, calibration_rng
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.provide import cached_teacher_path, get_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.vits.budget import Limits, format_count

NUM_READ = 4
NUM_BUDGET_DRAWS = 2000
ENUMERABLE = 20_000  # spaces up to this size are counted rather than sampled


@dataclass(frozen=True)
class Plan:
    """What `search --dry-run --json` prints."""

    dataset: Mapping[str, str | int]
    teacher: str | None  # None: nothing reads it
    teacher_would_be_trained: bool
    space: str
    space_size: int
    params_range: tuple[int, int]
    flops_range: tuple[int, int]
    budget: str
    budget_share: float
    budget_share_counted: bool
    searcher: str
    readings: tuple[str, ...]
    num_samples: int
    seconds_per_arch: float
    cores: int
    num_refined: int  # students
    num_distilled: int
    seconds: Mapping[str, float]  # of each phase
    estimated_s: float  # all together

    def sentences(self) -> list[str]:
        """For people."""
        data, (low, high) = self.dataset, self.params_range
        images = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test"))
        trained = ", which would be trained first" if self.teacher_would_be_trained else ""
        share = f"{'' if self.budget_share_counted else 'about '}{self.budget_share:.1%} of the space"
        each = 1e3 * self.seconds_per_arch
        parts = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in self.seconds.items())
        return [
            f"dataset   {data['name']}: {images} images, {data['classes']} classes",
            f"teacher   {self.teacher or 'none: nothing that is read compares with it'}{trained}",
            f"space     {self.space}: {self.space_size:,} architectures, "
            f"{format_count(low)} to {format_count(high)} parameters",
            f"budget    {self.budget}: {share}",
            f"search    {self.num_samples:,} architectures by {self.searcher}, reading {', '.join(self.readings)}",
            *([f"refine    {self.num_refined:,} students"] if self.num_refined else []),
            *([f"distill   the best {self.num_distilled:,}"] if self.num_distilled else []),
            f"time      {each:.1f} ms an architecture and core; {parts}",
            f"together  about {self.estimated_s:,.0f} s on {self.cores} cores",
        ]


def dry_run(config: RunConfig, num_refined: int = 0, num_distilled: int = 0) -> Plan:
    """Nothing is written, Ray is not started. Raises UsageError for what a search would be refused for.

    `num_refined`, `num_distilled`: students that are to be trained afterwards.
    """
    with process_as_it_was():
        profile = find_profile(config)
        data = load_data(config)
        limits = checked_limits(config, data.num_classes, profile)
        torch.set_num_threads(1)
        teacher, trains = _teacher_for_timing(config, data)
        reader = Reader(make_task(config, data, teacher))
        sample = calibration_archs(limits, config.seed, config.score.calibration_samples)
        rows = reader.read_all(sample[: NUM_READ + 1])
        seconds = [row.seconds for row in rows[1:] or rows]  # the first one warms up
        each = sum(seconds) / len(seconds)
        trains |= bool(num_refined + num_distilled) and not _teacher_is_there(config, data)
        cores = os.cpu_count() or 1
        speeds = Speeds(teacher_step_s=0, student_step_s=0, arch_s=each / cores)
        if trains or num_refined or num_distilled:
            speeds = measure_speeds(config, data, speeds.arch_s)
    space, (share, counted) = config.space, _budget_share(limits, config.seed)
    wanted = min(config.search.num_samples, round(share * space.size()) if counted else space.size())
    small, large = space.smallest(data.num_classes), space.largest(data.num_classes)
    takes = phases(
        config.with_(search={"num_samples": wanted}),
        len(data.train),
        speeds,
        trains_teacher=trains,
        num_refined=num_refined,
        num_distilled=num_distilled,
    )
    return Plan(
        dataset=_describe(data),
        teacher=None if teacher is None else config.teacher.name,
        teacher_would_be_trained=trains,
        space=space.name,
        space_size=space.size(),
        params_range=(small.params, large.params),
        flops_range=(small.flops, large.flops),
        budget=str(config.budget),
        budget_share=share,
        budget_share_counted=counted,
        searcher=config.search.searcher,
        readings=config.score.to_read,
        num_samples=wanted,
        seconds_per_arch=each,
        cores=cores,
        num_refined=num_refined,
        num_distilled=num_distilled,
        seconds=takes,
        estimated_s=sum(takes.values()),
    )


def _describe(data: Dataset) -> dict[str, str | int]:
    counts = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    return {"name": data.name, **counts, "classes": data.num_classes}


def _budget_share(limits: Limits, seed: int) -> tuple[float, bool]:
    """Share of the space within the budget, and whether it was counted rather than sampled."""
    space, counted = limits.space, limits.space.size() <= ENUMERABLE
    rng = calibration_rng(seed)
    archs = list(space.enumerate()) if counted else [space.sample(rng) for _ in range(NUM_BUDGET_DRAWS)]
    return sum(map(limits.admit, archs)) / len(archs), counted


def _teacher_for_timing(config: RunConfig, data: Dataset) -> tuple[Teacher | None, bool]:
    """The teacher if it is to be had at once, else an untrained one: reading takes as long with either."""
    if not need_teacher(config.score.to_read):
        return None, False
    if _teacher_is_there(config, data):
        return get_teacher(config.teacher, config.teacher_training, data)[0], False
    return build_teacher(config.teacher.untrained(), data.num_classes).freeze(), True


def _teacher_is_there(config: RunConfig, data: Dataset) -> bool:
    weights = config.teacher.weights
    return bool(weights) or cached_teacher_path(config.teacher, config.teacher_training, data).exists()
