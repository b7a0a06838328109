"""How many images and initialisations a ranking needs, and what they cost.

python benchmarks/probe_size.py [--cases digits,autoformer,pit] [--num-archs 32]

Per case: Kendall's tau between a ranking by 8 to 64 images and 1 to 4 initialisations, and one by 128 images: of the
same initialisations (what the images decide), and of four others (what is known of the architecture). For `t`, for the
sum of min-max normalised `t` and `s` (`--score tvt`), and for the default score, which reads no image. Images are
digits, the teacher is the digits' own, trained. Ends with one JSON object: rows by case.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from scorer import CASES, CONFIGS, NUM_CLASSES, names_of

from tvt_ray.bench.rank import kendall_tau
from tvt_ray.cli import Parser, run
from tvt_ray.config import load_config
from tvt_ray.data import build_probe_images, load_dataset
from tvt_ray.data.probe import ProbeSettings
from tvt_ray.distill.teacher import get_teacher
from tvt_ray.models import build_student
from tvt_ray.progress import Meter
from tvt_ray.proxies import PROXIES, build_probe
from tvt_ray.proxies.tvt import distances
from tvt_ray.search.fusion import ALWAYS_READ, Calibration
from tvt_ray.search.scorer import ScoringTask, make_row
from tvt_ray.space import as_space

NUM_IMAGES = (8, 16, 32, 64, 128)
NUM_INITS = (1, 2, 4)
REFERENCE = 128
FIRST_OTHER, NUM_DRAWS = 4, 8  # draws 0 to 3 are judged, 4 to 7 are the others

Floats = NDArray[np.float64]


def make_task(case: str) -> ScoringTask:
    config, digits = load_config(CONFIGS / CASES[case]), load_config(CONFIGS / CASES["digits"])
    data = load_dataset(digits.data)
    teacher, _ = get_teacher(digits.teacher, digits.teacher_training, data)
    settings = ProbeSettings(num_images=REFERENCE)
    images = build_probe_images(data.train, settings, config.space.image_size, teacher.image_size)
    return ScoringTask(as_space(config.space), NUM_CLASSES[case], ALWAYS_READ, 0, build_probe(images, teacher))


@dataclasses.dataclass
class Readings:
    """Of N architectures and D draws: t per image (N, D, 128), the others (N, D), rows for params and the like."""

    t: Floats
    weights: dict[str, Floats]
    rows: list[Any]
    seconds: float  # per architecture and draw, all 128 images


def read(case: str, num_archs: int) -> Readings:
    task, rng, archs = make_task(case), random.Random(0), {}
    while len(archs) < num_archs:
        arch = task.space.sample(rng)
        archs[task.space.arch_id(arch)] = arch
    t, weights = (
        np.empty((num_archs, NUM_DRAWS, REFERENCE)),
        {k: np.empty((num_archs, NUM_DRAWS)) for k in ALWAYS_READ[1:]},
    )
    start = time.perf_counter()
    with Meter(case, num_archs * NUM_DRAWS, "students") as meter:
        for i, arch in enumerate(archs.values()):
            for draw in range(NUM_DRAWS):
                student = build_student(task.space, arch, task.num_classes, task.seed, draw=draw, shared=True)
                t[i, draw] = -distances(student, task.probe).numpy()
                for name, values in weights.items():
                    values[i, draw] = PROXIES[name](student, task.probe)[name]
                meter.advance(1)
    seconds = (time.perf_counter() - start) / (num_archs * NUM_DRAWS)
    return Readings(t, weights, [make_row(task, arch, {}, None, 0.0) for arch in archs.values()], seconds)


def scores(readings: Readings, score: str, images: int, draws: slice) -> list[float]:
    """By the first `images` images and some draws, on the scale of these architectures themselves."""
    rows = []
    for i, row in enumerate(readings.rows):
        components = {"t": float(readings.t[i, draws, :images].mean())}
        components |= {name: float(values[i, draws].mean()) for name, values in readings.weights.items()}
        rows.append(dataclasses.replace(row, components=components))
    calibration = Calibration.from_rows(rows)
    return [float(calibration.fuse(score, row) or 0.0) for row in rows]


def table(readings: Readings) -> list[dict[str, float]]:
    others = slice(FIRST_OTHER, NUM_DRAWS)
    found = []
    for images in NUM_IMAGES:
        for inits in NUM_INITS:
            own, entry = slice(0, inits), {"images": images, "inits": inits}
            t = scores(readings, "t", images, own)
            found.append(
                {
                    **entry,
                    "t_same_inits": kendall_tau(t, scores(readings, "t", REFERENCE, own)),
                    "t_other_inits": kendall_tau(t, scores(readings, "t", REFERENCE, others)),
                    **{
                        f"{name}_other_inits": kendall_tau(
                            scores(readings, name, images, own), scores(readings, name, REFERENCE, others)
                        )
                        for name in ("tvt", "tvt_ray")
                    },
                    "ms": 1e3 * readings.seconds * inits * images / REFERENCE,
                }
            )
    return found


def command(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    result = {}
    for case in names_of(args.cases, CASES, "--cases"):
        rows = result[case] = [
            {k: round(float(v), 3) for k, v in row.items()} for row in table(read(case, args.num_archs))
        ]
        print(f"\n{case}, {args.num_archs} architectures\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(f"{value:g}" for value in row.values()) + " |", flush=True)
    print(json.dumps(result))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks/probe_size.py", allow_abbrev=False, description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", default="digits,autoformer,pit", metavar="A,B")
    parser.add_argument("--num-archs", type=int, default=32, metavar="N")
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
