"""How many images and initialisations a ranking needs, and what they cost.

python benchmarks/probe_size.py [--cases digits,autoformer,pit] [--num-archs 32]

Per case: Kendall's tau between a ranking by 8 to 64 images and 1 to 4 initialisations, and one by 128 images: of the
same initialisations (what the images decide), and of four others (what is known of the architecture). For
`attention_similarity`, for its sum with `l2_norm` (`--score tvt`), and for the default score, which reads no image.
Images are digits, the teacher is the digits' own, trained. Ends with one JSON object: rows by case.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from scorer import CASES, CONFIGS, NUM_CLASSES, names_of

from tvt_ray.cli.main import run
from tvt_ray.cli.options import Parser
from tvt_ray.data.datasets import load_dataset
from tvt_ray.evaluation.agreement import Floats, kendall_tau
from tvt_ray.progress import Meter
from tvt_ray.proxies import PROXIES
from tvt_ray.proxies.probe import ProbeSettings, build_probe, build_probe_images
from tvt_ray.proxies.tvt import distances
from tvt_ray.runs.config import load_config
from tvt_ray.scoring.calibration import Calibration
from tvt_ray.scoring.reader import ReadingTask, make_row
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import FULL
from tvt_ray.spaces import Arch
from tvt_ray.students import build_student
from tvt_ray.teachers.provide import get_teacher

NUM_IMAGES = (8, 16, 32, 64, 128)
NUM_INITS = (1, 2, 4)
REFERENCE = 128
SIMILARITY, *WEIGHT_READINGS = FULL
FIRST_OTHER, NUM_DRAWS = 4, 8  # draws 0 to 3 are judged, 4 to 7 are the others


def make_task(case: str) -> ReadingTask:
    config, digits = load_config(CONFIGS / CASES[case]), load_config(CONFIGS / CASES["digits"])
    data = load_dataset(digits.data)
    teacher, _ = get_teacher(digits.teacher, digits.teacher_training, data)
    settings = ProbeSettings(num_images=REFERENCE)
    images = build_probe_images(data.train, settings, config.space.image_size, teacher.image_size)
    return ReadingTask(config.space, NUM_CLASSES[case], FULL, 0, build_probe(images, teacher))


@dataclasses.dataclass
class Draws:
    """What was read of N architectures and D draws of their weights."""

    similarity: Floats  # attention_similarity per image: (N, D, 128)
    weights: dict[str, Floats]  # what reads no image: (N, D) each
    rows: list[Row]  # without readings: for parameters and the like
    seconds: float  # per architecture and draw, all 128 images


def read(case: str, num_archs: int) -> Draws:
    task, rng, archs = make_task(case), random.Random(0), dict[str, Arch]()
    while len(archs) < num_archs:
        arch = task.space.sample(rng)
        archs[task.space.arch_id(arch)] = arch
    similarity = np.empty((num_archs, NUM_DRAWS, REFERENCE))
    weights = {name: np.empty((num_archs, NUM_DRAWS)) for name in WEIGHT_READINGS}
    start = time.perf_counter()
    with Meter(case, num_archs * NUM_DRAWS, "students") as meter:
        for i, arch in enumerate(archs.values()):
            for draw in range(NUM_DRAWS):
                student = build_student(task.space, arch, task.num_classes, task.seed, draw=draw, shared=True)
                similarity[i, draw] = -distances(student, task.probe).numpy()
                for name, values in weights.items():
                    values[i, draw] = PROXIES[name].read(student, task.probe)
                meter.advance(1)
    seconds = (time.perf_counter() - start) / (num_archs * NUM_DRAWS)
    return Draws(similarity, weights, [make_row(task, arch, {}, None, 0.0) for arch in archs.values()], seconds)


def scores(read: Draws, score: str, images: int, draws: slice) -> list[float]:
    """By the first `images` images and some draws, on the scale of these architectures themselves."""
    rows = []
    for i, row in enumerate(read.rows):
        readings = {SIMILARITY: float(read.similarity[i, draws, :images].mean())}
        readings |= {name: float(values[i, draws].mean()) for name, values in read.weights.items()}
        rows.append(dataclasses.replace(row, readings=readings))
    calibration = Calibration.from_rows(rows)
    return [float(calibration.score(score, row) or 0.0) for row in rows]


def table(read: Draws) -> list[dict[str, float]]:
    return [entry(read, images, inits) for images in NUM_IMAGES for inits in NUM_INITS]


def entry(read: Draws, images: int, inits: int) -> dict[str, float]:
    """One size of probe against the reference."""
    own, others = slice(0, inits), slice(FIRST_OTHER, NUM_DRAWS)

    def tau(score: str, draws: slice) -> float:
        return kendall_tau(scores(read, score, images, own), scores(read, score, REFERENCE, draws))

    return {
        "images": images,
        "inits": inits,
        f"{SIMILARITY}_same_inits": tau(SIMILARITY, own),
        **{f"{name}_other_inits": tau(name, others) for name in (SIMILARITY, "tvt", "capacity")},
        "ms": 1e3 * read.seconds * inits * images / REFERENCE,
    }


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
    parser = Parser(prog="benchmarks/probe_size.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", default="digits,autoformer,pit", metavar="A,B")
    parser.add_argument("--num-archs", type=int, default=32, metavar="N")
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
