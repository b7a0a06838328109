"""How many times faster scoring is than the published way of doing it, on the same images and architectures.

python benchmarks/naive.py [--cases autoformer,pit,digits] [--precision float32,bfloat16] [--num-ranked 200]

The published way, per architecture: modules are made with PyTorch's initialisation and then drawn again (truncated
normal), the student runs twice and the teacher once, in float32, in PyTorch's ordinary kernels. And, as published, in a
Python process of its own, whose start and imports are timed. Ends with one JSON object: `speedup` by case and
precision, `speedup_process` likewise, against a process for each architecture; `difference`, the largest relative
difference of TVT's two readings on the same weights; with --num-ranked N, `tau`, Kendall's tau between bfloat16's and
float32's ranking of N architectures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from scorer import CASES, CONFIGS, PRECISIONS, make_task, names_of

from tvt_ray.cli.main import run
from tvt_ray.cli.options import Parser
from tvt_ray.data.datasets import load_dataset
from tvt_ray.evaluation.agreement import kendall_tau
from tvt_ray.progress import Meter
from tvt_ray.proxies.probe import ProbeSettings, build_probe_images
from tvt_ray.proxies.tvt import attention_map
from tvt_ray.runs.config import load_config
from tvt_ray.scoring.calibration import Calibration
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.spaces import Arch
from tvt_ray.students import STUDENTS, build_student
from tvt_ray.students.kernels import HAS_BF16
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Teacher

NUM_REPEATS = 3
IMPORTS = "import numpy, timm, torch, torchvision"  # what the published code loads before it scores anything
RANKINGS = ("attention_similarity", "tvt", "capacity")


@dataclasses.dataclass
class Published:
    """Scores as the published code does."""

    task: ReadingTask
    teacher: Teacher
    teacher_images: Tensor

    def build(self, arch: Arch) -> Any:
        """Each layer is drawn by PyTorch as it is made, and a second time by the model."""
        task = self.task
        student = STUDENTS[task.space.name](task.space, arch, task.num_classes)  # type: ignore[call-arg]
        for module in student.modules():
            if isinstance(module, nn.Linear):
                nn.Linear.reset_parameters(module)
                if student.linear_init == "normal":
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.Conv2d.reset_parameters(module)
            elif not isinstance(module, nn.LayerNorm):
                for parameter in module.parameters(recurse=False):
                    nn.init.trunc_normal_(parameter, std=0.02)
        return student.eval()

    @torch.no_grad()
    def read(self, student: Any) -> dict[str, float]:
        """TVT's two: the student once for its logits and once for its map, the teacher once."""
        images, last = self.task.probe.images, student.num_blocks - 1
        student(images)
        ours = student.feature_maps(images, (last,))[last]
        theirs = self.teacher(self.teacher_images)[1][-1]
        height, width = (max(a, b) for a, b in zip(ours.shape[-2:], theirs.shape[-2:], strict=True))
        difference = attention_map(theirs, (height, width)) - attention_map(ours, (height, width))
        layers = [module for module in student.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        similarity, norms = -difference.square().mean().item(), sum(layer.weight.norm().item() for layer in layers)
        return {"attention_similarity": similarity, "l2_norm": norms}

    def score(self, arch: Arch) -> dict[str, float]:
        return self.read(self.build(arch))


def published(case: str, num_images: int) -> Published:
    """The case's task, whose probe holds the maps of the very teacher that is run each time."""
    config, task = load_config(CONFIGS / CASES[case]), make_task(case, num_images, "float32")
    data = load_dataset(load_config(CONFIGS / CASES["digits"]).data)
    teacher = build_teacher(TeacherSettings(name=config.teacher.name), data.num_classes).freeze()
    settings = ProbeSettings(num_images=num_images)
    images = build_probe_images(data.train, settings, config.space.image_size, teacher.image_size)
    with torch.no_grad():
        maps = tuple(teacher(images.teacher)[1])
    probe = dataclasses.replace(task.probe, teacher_maps=maps)
    return Published(dataclasses.replace(task, probe=probe), teacher, images.teacher)


def in_precision(task: ReadingTask, precision: str) -> ReadingTask:
    return dataclasses.replace(task, probe=dataclasses.replace(task.probe, precision=PRECISIONS[precision]))


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def largest_difference(task: ReadingTask, slow: Published, archs: Sequence[Arch]) -> float:
    """Relative, of either reading, between both ways of reading the same weights."""
    reader, worst = Reader(task), 0.0
    for arch in archs:
        theirs = slow.read(build_student(task.space, arch, task.num_classes, task.seed))
        ours = reader.readings(arch)
        worst = max(worst, *(abs(ours[name] / value - 1) for name, value in theirs.items()))
    return worst


def time_both(slow: Published, precisions: Sequence[str], archs: Sequence[Arch]) -> dict[str, float]:
    """Seconds per architecture, each architecture by every way in turn, the fastest of a few."""
    ways: dict[str, Callable[[Arch], object]] = {"published": slow.score}
    for precision in precisions:
        ways[precision] = Reader(in_precision(slow.task, precision)).readings
    for way in ways.values():
        way(archs[0])
    spent = dict.fromkeys(ways, 0.0)
    for arch in archs:
        best = dict.fromkeys(ways, math.inf)
        for _ in range(NUM_REPEATS):
            for name, way in ways.items():
                best[name] = min(best[name], seconds_of(lambda way=way, arch=arch: way(arch)))  # type: ignore[misc]
        for name, seconds in best.items():
            spent[name] += seconds / len(archs)
    return spent


def process_seconds() -> float:
    """Starting Python and importing, as often as there are architectures in the published loop."""
    return min(seconds_of(lambda: subprocess.run([sys.executable, "-c", _START], check=True)) for _ in range(2))


_START = f"import tvt_ray.vision_compat as v; v.ensure_torchvision(); {IMPORTS}"


def agreement(task: ReadingTask, num_archs: int) -> dict[str, float]:
    """Kendall's tau between the rankings in bfloat16 and in float32 of the same weights, by several scores."""
    rng, archs = random.Random(1), dict[str, Arch]()
    while len(archs) < num_archs:
        arch = task.space.sample(rng)
        archs[task.space.arch_id(arch)] = arch
    rows: dict[str, list[Any]] = {}
    for precision in PRECISIONS:
        reader, rows[precision] = Reader(in_precision(task, precision)), []
        with Meter(f"ranking in {precision}", num_archs, "architectures") as meter:
            for arch in archs.values():
                rows[precision].append(reader.read(arch))
                meter.advance(1)
    calibration = Calibration.from_rows(rows["float32"])
    fused = {
        score: [[calibration.score(score, row) for row in rows[precision]] for precision in PRECISIONS]
        for score in RANKINGS
    }
    return {score: round(float(kendall_tau(one, two)), 4) for score, (one, two) in fused.items()}


def command(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    cases, precisions = names_of(args.cases, CASES, "--cases"), names_of(args.precision, PRECISIONS, "--precision")
    result: dict[str, dict[str, Any]] = {"speedup": {}, "speedup_process": {}, "difference": {}}
    start_up = process_seconds()
    print(f"starting a Python process and importing: {start_up:.1f} s")
    for case in cases:
        slow, rng = published(case, args.num_images), random.Random(0)
        archs = [slow.task.space.sample(rng) for _ in range(args.num_archs)]
        result["difference"][case] = largest_difference(slow.task, slow, archs)
        spent = time_both(slow, precisions, archs)
        _print_case(case, spent, start_up, result)
        if args.num_ranked:
            result.setdefault("tau", {})[case] = agreement(slow.task, args.num_ranked)
            print(f"{case}: tau of bfloat16 with float32 over {args.num_ranked}: {result['tau'][case]}", flush=True)
    print(json.dumps(result))
    return 0


def _print_case(case: str, spent: Mapping[str, float], start_up: float, result: dict[str, dict[str, Any]]) -> None:
    for precision in list(spent)[1:]:
        name = case if precision == "float32" else f"{case}-{precision}"
        result["speedup"][name] = round(spent["published"] / spent[precision], 2)
        result["speedup_process"][name] = round((start_up + spent["published"]) / spent[precision], 2)
        print(
            f"{name:20} published {1e3 * spent['published']:8.1f} ms  here {1e3 * spent[precision]:8.1f} ms: "
            f"{result['speedup'][name]:.2f} times; {result['speedup_process'][name]:.1f} times with a process each; "
            f"readings differ by {result['difference'][case]:.1e} at most (float32)",
            flush=True,
        )


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks/naive.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", default=",".join(CASES), metavar="A,B")
    default = ",".join(PRECISIONS) if HAS_BF16 else "float32"  # emulated it takes minutes
    parser.add_argument("--precision", default=default, metavar="A,B", help="float32, bfloat16 (default: what is fast)")
    parser.add_argument("--num-images", type=int, default=32, metavar="N")
    parser.add_argument("--num-archs", type=int, default=4, metavar="N")
    parser.add_argument("--num-ranked", type=int, default=0, metavar="N")
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
