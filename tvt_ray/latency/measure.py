"""Measures a space on this machine: its parts, then whole students that say how well the parts predict."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tvt_ray.latency.design import NUM_CLASSES, parts_of, timed_parts, whole_archs
from tvt_ray.latency.device import Device
from tvt_ray.latency.fitting import fit_parts, fit_whole, relative_error
from tvt_ray.latency.predictor import PartTimes, Predictor
from tvt_ray.latency.profile import BatchProfile, DeviceProfile, MeasuredPart
from tvt_ray.latency.timing import Bench
from tvt_ray.progress import Meter
from tvt_ray.vits import Arch, Space
from tvt_ray.vits.pieces import Part

NUM_STUDENTS = 24  # whole ones: every other settles the sum of parts, the rest judge
NUM_ROUNDS = 3


@dataclass(frozen=True)
class Wish:
    """What is to be measured."""

    space: Space
    device: Device
    threads: int
    batch_sizes: tuple[int, ...]
    num_students: int = NUM_STUDENTS


def measure_profile(wish: Wish) -> DeviceProfile:
    """Minutes of this machine, of which a meter tells."""
    parts, archs = timed_parts(parts_of(wish.space)), whole_archs(wish.space, wish.num_students)
    total = NUM_ROUNDS * (len(parts) + len(archs)) * len(wish.batch_sizes)
    with Meter("profiling", total, "measurements") as meter:
        batches = [_measure_batch(wish, size, parts, archs, meter) for size in wish.batch_sizes]
    return DeviceProfile(
        device=wish.device,
        threads=wish.threads,
        torch=torch.__version__,
        space=wish.space,
        batches=tuple(batches),
    )


def _measure_batch(
    wish: Wish, batch_size: int, parts: Sequence[Part], archs: Sequence[Arch], meter: Meter
) -> BatchProfile:
    bench, space = Bench(wish.device.kind, wish.threads, batch_size), wish.space
    timed: list[Callable[[], float]] = [functools.partial(bench.part_ms, part) for part in parts]
    timed += [functools.partial(bench.student_ms, space, arch, NUM_CLASSES) for arch in archs]
    best = in_rounds(timed, lambda: meter.advance(1, f"batch size {batch_size}"))
    return make_batch(space, batch_size, dict(zip(parts, best, strict=False)), archs, best[len(parts) :])


def measure_students(
    bench: Bench, space: Space, archs: Sequence[Arch], num_classes: int, counted: Callable[[], object]
) -> list[float]:
    """Milliseconds of each; `counted` is called after every one of NUM_ROUNDS measurements of each."""
    return in_rounds([functools.partial(bench.student_ms, space, arch, num_classes) for arch in archs], counted)


def in_rounds(timed: Sequence[Callable[[], float]], counted: Callable[[], object]) -> list[float]:
    """The least of NUM_ROUNDS times of each, in an order of its own each round: other work on the machine passes."""
    best, rng = [math.inf] * len(timed), random.Random(0)
    for _ in range(NUM_ROUNDS):
        for index in rng.sample(range(len(timed)), len(timed)):
            best[index] = min(best[index], timed[index]())
            counted()
    return best


def make_batch(
    space: Space, batch_size: int, times: Mapping[Part, float], archs: Sequence[Arch], students_ms: Sequence[float]
) -> BatchProfile:
    """From what was measured: fits, and their errors. Where there is but one student, it settles and judges."""
    fits = fit_parts(times)
    measured = {(part.kind, part.sizes): ms for part, ms in times.items()}
    part_times = PartTimes(measured, fits)
    settling, judging = slice(0, None, 2), slice(1 if len(archs) > 1 else 0, None, 2)
    sums = [part_times.sum_ms(space.parts(arch, NUM_CLASSES)) for arch in archs[settling]]
    whole = fit_whole(sums, students_ms[settling])
    predict: Callable[[Arch], float] = Predictor(space, NUM_CLASSES, part_times, whole)
    fitted = PartTimes({}, fits)
    return BatchProfile(
        batch_size=batch_size,
        parts=tuple(MeasuredPart(kind=part.kind, sizes=part.sizes, ms=ms) for part, ms in times.items()),
        fits=fits,
        fit_error=relative_error([fitted.part_ms(part) for part in times], list(times.values())),
        whole=whole,
        error=relative_error([predict(arch) for arch in archs[judging]], students_ms[judging]),
        students_ms=(min(students_ms), max(students_ms)),
    )
