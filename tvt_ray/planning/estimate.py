"""How long things take here: a few steps and architectures, timed now, and what a search would do by that."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import eval_batch_size
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.planning.facts import Speeds
from tvt_ray.planning.inherited import inherits
from tvt_ray.planning.recipe import phases
from tvt_ray.proxies import need_teacher
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import checked_limits, find_profile, limits_of, load_data, make_task
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.scores import calibration_archs, calibration_rng
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.head import fast, features_of, num_features
from tvt_ray.teachers.provide import cached_teacher_path, get_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.training import TeacherTrainer, teacher_hits, trains_head
from tvt_ray.training.learner import WorkerContext
from tvt_ray.training.pace import Pace, device_here, divide, step_seconds
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Limits, format_count

NUM_DRAWN = 200  # architectures, of which the largest within the budget is timed
NUM_READ = 4
NUM_FEATURES = 32  # images whose features are timed
FITTING_SHARE = 0.5  # of the time that features take: what choosing and fitting a head on them takes
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
        """The plan in lines for people."""
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
        teacher, trains = _teacher_for_timing(config, data)
        sample = calibration_archs(limits, config.seed, config.score.calibration_samples)
        each = _arch_seconds(config, data, teacher, sample[: NUM_READ + 1])
        trains |= bool(num_refined + num_distilled) and not _teacher_is_there(config, data)
        cores = os.cpu_count() or 1
        speeds = Speeds(teacher_step_s=0, student_step_s=0, arch_s=each / cores)
        if trains or num_refined or num_distilled:
            speeds = measure_speeds(config, data, speeds.arch_s)
    space, (share, counted) = config.space, _budget_share(limits, config.seed)
    wanted = min(config.search.num_samples, round(share * space.size()) if counted else space.size())
    small, large = space.smallest(data.num_classes), space.largest(data.num_classes)
    counts = {name: len(split) for name, split in data.splits.items()}
    takes = phases(
        config.with_(search={"num_samples": wanted}),
        len(data.train),
        speeds,
        trains_teacher=trains,
        num_refined=num_refined,
        num_distilled=num_distilled,
    )
    return Plan(
        dataset={"name": data.name, **counts, "classes": data.num_classes},
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


def measure_speeds(config: RunConfig, data: Dataset, arch_s: float | None = None) -> Speeds:
    """A few steps of teacher and student, and a few architectures read: some seconds. Nothing is kept.

    `arch_s`: what reading an architecture takes, where that was measured already. A teacher whose weights are given is
    not trained, and takes no step. Raises UsageError where they do not fit.
    """
    cores, rng, head_s = os.cpu_count() or 1, random.Random(0), 0.0
    if config.teacher.weights:
        teacher, teacher_step_s = build_teacher(config.teacher, data.num_classes), 0.0
    elif trains_head(config.teacher, config.teacher_training):
        teacher, teacher_step_s = build_teacher(config.teacher.untrained(), data.num_classes).freeze(), 0.0
        head_s = _head_seconds(teacher, data)
    else:
        trainer = TeacherTrainer(config.teacher.untrained(), config.teacher_training, data, device_here())
        teacher_step_s = _per_step(trainer.measure(cores, learns=True), data)
        teacher = trainer.teacher.cpu().freeze()
    steps, test_s = _student_steps(config, data, teacher), _test_seconds(teacher, data)
    if arch_s is None:
        archs = [config.space.sample(rng) for _ in range(NUM_READ + 1)]
        arch_s = _arch_seconds(config, data, teacher, archs) / cores
    return Speeds(teacher_step_s=teacher_step_s, arch_s=arch_s, head_s=head_s, test_s=test_s, **steps)


def with_students_speed(speeds: Speeds, config: RunConfig, data: Dataset, arch: Arch | None = None) -> Speeds:
    """The speeds with the student's measured anew: of `arch`, or of the largest one within the config's budget."""
    teacher = build_teacher(config.teacher.untrained(), data.num_classes).freeze()
    return dataclasses.replace(speeds, **_student_steps(config, data, teacher, arch))


def smaller(config: RunConfig, num_classes: int, share: float) -> RunConfig | None:
    """The config with a limit on FLOPs, of so much of those that the largest student within the budget has.

    A fifth of what is drawn stays inside, so that there is a choice. None where no limit would leave out any.
    """
    flops = sorted(config.space.cost(arch, num_classes).flops for arch in _drawn(config, num_classes))
    limit = max(round(share * flops[-1]), flops[len(flops) // 5])
    if limit >= flops[-1]:
        return None
    return config.with_(budget={"max_flops": limit})


def _student_steps(config: RunConfig, data: Dataset, teacher: Teacher, arch: Arch | None = None) -> dict[str, float]:
    """Of a student, or of the largest: seconds of a step by their names in Speeds, teacher included.

    Where stages are frozen at first, the teacher is asked then, and no more once all of the student learns.
    """
    arch, settings = arch or largest_arch(config, data.num_classes), config.distill
    inputs, context = DistillInputs(data.train, data.val, data.test, teacher), WorkerContext(device_here())

    def cohort(settings: DistillSettings) -> Cohort:
        return Cohort([DistillTask(config.space, arch, data.num_classes, settings, config.plugins)], inputs, context)

    cores, frozen = os.cpu_count() or 1, {}
    if inherits(config):
        first_s, known_s = cohort(settings).frozen_seconds(cores)
        frozen = {"view_step_s": first_s, "frozen_step_s": known_s}
        settings = settings.with_(loss=settings.loss.alone())
    pace = cohort(settings).measure(cores, learns=True)
    teacher.cpu()
    return {"student_step_s": _per_step(pace, data), **frozen}


def _head_seconds(teacher: Teacher, data: Dataset) -> float:
    """What a head takes, all cores at work: features of some images, timed, and a part of that for what is fitted."""
    some = data.train.take(np.arange(min(len(data.train), NUM_FEATURES)))
    see = fast(teacher.to(device_here()).features, device_here())
    features_of(see, some, teacher.image_size)  # which warms up
    start = time.perf_counter()
    features_of(see, some, teacher.image_size)
    each = (time.perf_counter() - start) / len(some)
    teacher.cpu()
    return (1 + FITTING_SHARE) * each * num_features(len(data.train))


def _test_seconds(teacher: Teacher, data: Dataset) -> float:
    """The teacher on the test images, at its own size and at the student's, and twice on those that validate."""
    some = data.test.take(np.arange(min(len(data.test), eval_batch_size(teacher.image_size))))
    teacher_hits(teacher, some)  # which warms up
    start = time.perf_counter()
    teacher_hits(teacher, some)
    return (time.perf_counter() - start) / len(some) * 2 * (len(data.test) + len(data.val))


def _per_step(pace: Pace, data: Dataset) -> float:
    """A step as this machine's cores divide it, with its share of the validation that ends an epoch: a third of a step
    for as many images.
    """
    step = step_seconds(divide(os.cpu_count() or 1, pace), pace)
    return step * (1 + len(data.val) / len(data.train) / 3)


def largest_arch(config: RunConfig, num_classes: int) -> Arch:
    """Of some that are drawn within the budget, the one with most FLOPs."""
    return max(_drawn(config, num_classes), key=lambda arch: config.space.cost(arch, num_classes).flops)


def _drawn(config: RunConfig, num_classes: int) -> list[Arch]:
    """Some, within the budget where any of them are."""
    rng = random.Random(0)
    drawn = [config.space.sample(rng) for _ in range(NUM_DRAWN)]
    limits = limits_of(config, num_classes, find_profile(config))
    return [arch for arch in drawn if limits.admit(arch)] or drawn


def _arch_seconds(config: RunConfig, data: Dataset, teacher: Teacher | None, archs: Sequence[Arch]) -> float:
    """What one takes on one core, as a worker reads; the first one warms up, and is left out where there are others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = [row.seconds for row in Reader(make_task(config, data, teacher)).read_all(archs)]
    torch.set_num_threads(threads)
    return float(np.mean(seconds[1:] or seconds))
