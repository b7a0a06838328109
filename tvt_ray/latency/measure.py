"""Measures a space on this machine: its parts, then whole students that say how well the parts predict.

Parts are all of a space where they are few, else those that lie furthest apart. Times are medians of
torch.utils.benchmark, in eager PyTorch without gradients.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

from tvt_ray.latency.predictor import PartTimes, Predictor, fit_parts, fit_whole, relative_error
from tvt_ray.latency.profile import BatchProfile, Device, DeviceKind, DeviceProfile, MeasuredPart
from tvt_ray.progress import Meter
from tvt_ray.vits import Arch, Space, build_student
from tvt_ray.vits.draws import INIT_STD
from tvt_ray.vits.pieces import Part

NUM_STUDENTS = 24  # whole ones: every other settles the sum of parts, the rest judge
NUM_ROUNDS = 3
ENUMERABLE = 5000  # spaces up to this size are gone through for their parts
NUM_DRAWN = 2000  # architectures of a larger one
MAX_PARTS = 48  # of a kind that are timed
HEAD_CLASSES = (10, 1000)  # that heads are timed with; between these their fit is nearly a line
NUM_CLASSES = 100  # of whole students
NUM_COPIES = 4  # of a part, one after the other, each with weights of its own: those of a student are not in the cache
NUM_WARM_UPS = 3
PART_S, STUDENT_S = 0.05, 0.1  # that is spent on each, at least


def measure_profile(
    space: Space, device: Device, threads: int, batch_sizes: Sequence[int], num_students: int = NUM_STUDENTS
) -> DeviceProfile:
    """Minutes of this machine, of which a meter tells. `threads`: of PyTorch on the CPU."""
    parts, archs = timed_parts(parts_of(space)), whole_archs(space, num_students)
    benches = [Bench(device.kind, threads, size) for size in batch_sizes]
    with Meter("profiling", NUM_ROUNDS * (len(parts) + len(archs)) * len(batch_sizes), "measurements") as meter:
        batches = [_measure_batch(bench, space, parts, archs, meter) for bench in benches]
    return DeviceProfile(device=device, threads=threads, torch=torch.__version__, space=space, batches=tuple(batches))


def _measure_batch(
    bench: Bench, space: Space, parts: Sequence[Part], archs: Sequence[Arch], meter: Meter
) -> BatchProfile:
    timed: list[Callable[[], float]] = [functools.partial(bench.part_ms, part) for part in parts]
    timed += [functools.partial(bench.student_ms, space, arch, NUM_CLASSES) for arch in archs]
    best = in_rounds(timed, lambda: meter.advance(1, f"batch size {bench.batch_size}"))
    return make_batch(space, bench.batch_size, dict(zip(parts, best, strict=False)), archs, best[len(parts) :])


def in_rounds(timed: Sequence[Callable[[], float]], counted: Callable[[], object]) -> list[float]:
    """The least of NUM_ROUNDS times of each, in an order of its own each round: other work on the machine passes.

    `counted` is called after every measurement.
    """
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


def parts_of(space: Space) -> list[Part]:
    """The different parts of a space, heads with either of HEAD_CLASSES; of a large space those of many draws."""
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(NUM_DRAWN)] if space.size() > ENUMERABLE else list(space.enumerate())
    drawn.append(space.largest_arch(NUM_CLASSES))
    return list(
        dict.fromkeys(part for arch in drawn for classes in HEAD_CLASSES for part in space.parts(arch, classes))
    )


def timed_parts(parts: Sequence[Part], most: int = MAX_PARTS) -> list[Part]:
    """All of a kind where these are `most` at most, else so many that lie furthest apart."""
    by_kind: dict[str, list[Part]] = {}
    for part in parts:
        by_kind.setdefault(part.kind, []).append(part)
    return [part for kind in by_kind.values() for part in _spread(kind, most)]


def _spread(parts: list[Part], most: int) -> list[Part]:
    """Begins with the least and the most FLOPs, then takes whatever is furthest from those taken, by log sizes."""
    if len(parts) <= most:
        return parts
    points = np.log([[1 + part.activations, 1 + part.cost.params, 1 + part.cost.flops] for part in parts])
    flops = points[:, 2]
    taken = [int(flops.argmin()), int(flops.argmax())]
    distances = np.stack([np.linalg.norm(points - points[index], axis=1) for index in taken]).min(0)
    while len(taken) < most:
        taken.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(points - points[taken[-1]], axis=1))
    return [parts[index] for index in sorted(set(taken))]


def whole_archs(space: Space, count: int) -> list[Arch]:
    """Different architectures, from fewest to most FLOPs as evenly apart as draws have them; fewer in a tiny space."""
    rng = random.Random(1)
    drawn = {space.arch_id(arch): arch for arch in (space.sample(rng) for _ in range(20 * count))}
    by_flops = sorted(drawn.values(), key=lambda arch: (space.cost(arch, NUM_CLASSES).flops, space.arch_id(arch)))
    chosen = np.unique(np.linspace(0, len(by_flops) - 1, min(count, len(by_flops))).round().astype(int))
    return [by_flops[index] for index in chosen]


@dataclass(frozen=True)
class Bench:
    """Where and how something is timed."""

    kind: DeviceKind
    threads: int  # of PyTorch on the CPU
    batch_size: int  # images at a time

    def part_ms(self, part: Part) -> float:
        """Milliseconds that a part takes among others like it."""
        modules = [build_part(part, self.kind) for _ in range(NUM_COPIES)]
        inputs = torch.randn(self.batch_size, *modules[0][1], device=self.kind)

        def run() -> None:
            for module, _ in modules:
                module(inputs)

        return self.median_ms(run, PART_S) / NUM_COPIES

    def student_ms(self, space: Space, arch: Arch, num_classes: int) -> float:
        """Milliseconds from images on the device to logits."""
        student = build_student(space, arch, num_classes, seed=0, device=self.kind)
        images = torch.randn(self.batch_size, 3, space.image_size, space.image_size, device=self.kind)
        return self.median_ms(lambda: student(images), STUDENT_S)

    def median_ms(self, run: Callable[[], object], min_s: float) -> float:
        """Milliseconds of a call. Timer waits for the GPU, and sets PyTorch's threads for as long as it runs."""
        timer = Timer("run()", globals={"run": run}, num_threads=self.threads)
        with torch.inference_mode():
            timer.timeit(NUM_WARM_UPS)
            return 1e3 * float(timer.blocked_autorange(min_run_time=min_s).median)


def build_part(part: Part, device: torch.device | str = "cpu") -> tuple[nn.Module, tuple[int, ...]]:
    """The module in eval mode, with some weights, and the shape of its input without the axis of images."""
    with torch.device(device), torch.no_grad():
        module = part.piece.timed(*part.sizes)
        for parameter in module.parameters():
            parameter.normal_(0, INIT_STD)  # numbers as a student's, since denormal ones would be slow
    return module.eval(), part.input_shape
