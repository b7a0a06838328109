"""How near scoring comes to this machine's own matrix-multiply rate, and where the time goes.

python -m benchmarks scorer [--cases autoformer,pit,digits] [--precision float32,bfloat16] [--num-images N]

For AutoFormer and PiT at 224 pixels and the digits space, one thread: seconds per architecture, the share of time in
each step, and the FLOP/s of the whole scoring (building included; only matrix products and convolutions are counted) as
a share of the fastest large matrix product that torch.matmul does in the same precision in the same run. The result:
`gemm_share` by case and precision, and `details` of each.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks.runner import REPO, Record, names_of
from tvt_ray.cli.output import print_table
from tvt_ray.data.datasets import load_dataset
from tvt_ray.proxies import PROXIES
from tvt_ray.proxies.probe import ProbeSettings, build_probe
from tvt_ray.runs.config import load_config
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.scoring.scores import FULL
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.vits import Arch, build_student

CONFIGS = REPO / "configs"
CASES = {"autoformer": "autoformer_cifar100.yaml", "pit": "pit_cifar100.yaml", "digits": "digits.yaml"}
NUM_CLASSES = {"autoformer": 100, "pit": 100, "digits": 10}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = (1024, 2048)  # of the square matrices that the peak is measured with
NUM_REPEATS = 3


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", default=",".join(CASES), metavar="A,B")
    parser.add_argument("--precision", default="float32", metavar="A,B", help="float32, bfloat16")
    parser.add_argument("--num-images", type=int, default=32, metavar="N")
    parser.add_argument("--num-archs", type=int, default=6, metavar="N")
    parser.add_argument("--device", default="cpu")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    torch.set_num_threads(1)
    cases, precisions = names_of(args.cases, CASES, "--cases"), names_of(args.precision, PRECISIONS, "--precision")
    details: dict[str, Any] = {}
    for case, precision in itertools.product(cases, precisions):
        name = case if precision == "float32" else f"{case}-{precision}"
        details[name] = record.once(name, time_case, case, precision, args)
    shares = {name: round(found["gemm_share"], 3) for name, found in details.items()}
    return {"gemm_share": shares, "details": details}


def time_case(case: str, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """Reading and matrix products take turns, so that both see the same machine."""
    device = torch.device(args.device)
    task, rng, num_archs = make_task(case, args.num_images, precision), random.Random(0), args.num_archs
    reader, archs = Reader(task, device), [task.space.sample(rng) for _ in range(num_archs)]
    reader.readings(archs[0])  # the first one pays for the pool of weights and for kernels that are made on first use
    best, rates, steps = [math.inf] * num_archs, [matmul_rate(precision, device)], dict[str, float]()
    for i, arch in enumerate(archs):
        for _ in range(NUM_REPEATS):
            best[i] = min(best[i], timed(lambda arch=arch: reader.readings(arch), device))  # type: ignore[misc]
        rates.append(matmul_rate(precision, device))
        for step, seconds in time_steps(reader, arch).items():
            steps[step] = steps.get(step, 0.0) + seconds
    flops = sum(reading_flops(task, arch) for arch in archs)
    spent = sum(steps.values())
    return {
        "seconds_per_arch": sum(best) / num_archs,
        "gflops": flops / sum(best) / 1e9,
        "peak_gflops": max(rates) / 1e9,
        "gemm_share": flops / sum(best) / max(rates),
        "steps": {step: seconds / spent for step, seconds in steps.items()},
    }


def make_task(case: str, num_images: int, precision: str) -> ReadingTask:
    """The case's space on digit images at its resolution; the teacher is untrained, which takes as long."""
    config = load_config(CONFIGS / CASES[case])
    data = load_dataset(load_config(CONFIGS / CASES["digits"]).data)
    teacher = build_teacher(TeacherSettings(name=config.teacher.name), data.num_classes).freeze()
    settings = ProbeSettings.model_validate({"num_images": num_images, "precision": precision})
    probe = build_probe(data.train, settings, config.space.image_size, teacher)
    return ReadingTask(config.space, NUM_CLASSES[case], FULL, 0, probe)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    sync = torch.cuda.synchronize if device.type == "cuda" else nullcontext
    sync()
    start = time.perf_counter()
    call()
    sync()
    return time.perf_counter() - start


def matmul_rate(precision: str, device: torch.device) -> float:
    """FLOP/s of the fastest of a few large products."""
    rates = []
    for size in SIZES if device.type == "cpu" else (*SIZES, 8192):
        left, right = (torch.randn(size, size, device=device).to(PRECISIONS[precision]) for _ in range(2))
        rates += [2 * size**3 / timed(lambda a=left, b=right: a @ b, device) for _ in range(NUM_REPEATS)]  # type: ignore[misc]
    return max(rates)


def reading_flops(task: ReadingTask, arch: Arch) -> int:
    """Of one architecture: two for each multiply-accumulate of the student's pass, without the classifier."""
    return 2 * len(task.probe.images) * task.space.cost(arch, 0).flops


def time_steps(reader: Reader, arch: Arch) -> dict[str, float]:
    """Seconds of making the student and of each reading."""
    task, device = reader.task, reader.device

    def build() -> Any:
        return build_student(task.space, arch, task.num_classes, task.seed, device, shared=True)

    student = build()
    steps = {"build": timed(build, device)}
    for name in task.proxies:
        steps[name] = timed(lambda name=name: PROXIES[name].read(student, reader.probe), device)  # type: ignore[misc]
    return steps


def show(result: Mapping[str, Any]) -> None:
    rows = [
        [
            name,
            f"{1e3 * found['seconds_per_arch']:.1f}",
            f"{found['gflops']:.1f} of {found['peak_gflops']:.1f}",
            f"{found['gemm_share']:.2f}",
            ", ".join(f"{step} {100 * share:.1f} %" for step, share in found["steps"].items()),
        ]
        for name, found in result["details"].items()
    ]
    print_table("one thread", ["case", "ms", "GFLOP/s", "share", "of the time"], rows)
