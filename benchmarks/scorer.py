"""How near scoring comes to this machine's own matrix-multiply rate, and where the time goes.

python benchmarks/scorer.py [--cases autoformer,pit,digits] [--precision float32,bfloat16] [--num-images N]

For AutoFormer and PiT at 224 pixels and the digits space, one thread: seconds per architecture, the share of time in
each step, and the FLOP/s of the whole scoring (building included; only matrix products and convolutions are counted) as
a share of the fastest large matrix product that torch.matmul does in the same precision in the same run. Ends with one
JSON object; `gemm_share` is keyed by case and precision.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from tvt_ray.cli.main import run
from tvt_ray.cli.options import Parser
from tvt_ray.data.datasets import load_dataset
from tvt_ray.errors import UsageError
from tvt_ray.proxies import PROXIES
from tvt_ray.proxies.probe import ProbeSettings, build_probe, build_probe_images
from tvt_ray.runs.config import load_config
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.scoring.scores import FULL
from tvt_ray.spaces import Arch
from tvt_ray.students import build_student
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings

CONFIGS = Path(__file__).parents[1] / "configs"
CASES = {"autoformer": "autoformer_cifar100.yaml", "pit": "pit_cifar100.yaml", "digits": "digits.yaml"}
NUM_CLASSES = {"autoformer": 100, "pit": 100, "digits": 10}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = (1024, 2048)  # of the square matrices that the peak is measured with
NUM_REPEATS = 3


def make_task(case: str, num_images: int, precision: str) -> ReadingTask:
    """The case's space on digit images at its resolution; the teacher is untrained, which takes as long."""
    config = load_config(CONFIGS / CASES[case])
    data = load_dataset(load_config(CONFIGS / CASES["digits"]).data)
    teacher = build_teacher(TeacherSettings(name=config.teacher.name), data.num_classes).freeze()
    settings = ProbeSettings(num_images=num_images)
    images = build_probe_images(data.train, settings, config.space.image_size, teacher.image_size)
    probe = build_probe(images, teacher, PRECISIONS[precision])
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


def measure(case: str, precision: str, num_images: int, num_archs: int, device: torch.device) -> dict[str, Any]:
    """Reading and matrix products take turns, so that both see the same machine."""
    task, rng = make_task(case, num_images, precision), random.Random(0)
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


def names_of(text: str, known: Mapping[str, Any], flag: str) -> Sequence[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise UsageError(f"{flag}: unknown {name!r}; choices: {', '.join(known)}")
    return chosen


def command(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    cases, precisions = names_of(args.cases, CASES, "--cases"), names_of(args.precision, PRECISIONS, "--precision")
    shares: dict[str, float] = {}
    for case in cases:
        for precision in precisions:
            found = measure(case, precision, args.num_images, args.num_archs, torch.device(args.device))
            name = case if precision == "float32" else f"{case}-{precision}"
            shares[name] = round(found["gemm_share"], 3)
            steps = ", ".join(f"{step} {100 * share:.1f} %" for step, share in found["steps"].items())
            print(
                f"{name:20} {1e3 * found['seconds_per_arch']:8.1f} ms an architecture  {found['gflops']:8.1f} of "
                f"{found['peak_gflops']:.1f} GFLOP/s = {found['gemm_share']:.2f}   {steps}",
                flush=True,
            )
    print(json.dumps({"gemm_share": shares}))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks/scorer.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", default=",".join(CASES), metavar="A,B")
    parser.add_argument("--precision", default="float32", metavar="A,B", help="float32, bfloat16")
    parser.add_argument("--num-images", type=int, default=32, metavar="N")
    parser.add_argument("--num-archs", type=int, default=6, metavar="N")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
