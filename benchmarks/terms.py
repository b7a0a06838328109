"""Which form of the teacher-aware and of the capability term predicts accuracy: the tables behind the default score.

python benchmarks/terms.py --ground-truth FILE… --dataset parquet:PATH --teacher resnet56 --teacher-weights FILE

Every form (term_forms.py) is read off the same students, one forward pass each. Per form: Kendall's tau with each
*_kd_acc column, the partial rank correlation once `l2_norm` and the parameter count are known, and how much of its
spread over architectures other weights and other images make. Ends with one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from term_forms import PUBLISHED, capability_forms, teacher_forms

from tvt_ray.cli.main import run
from tvt_ray.cli.options import COMMON, Parser, add_options, config_of
from tvt_ray.evaluation.agreement import Floats, noise_share, partial_correlation
from tvt_ray.evaluation.truth import read_ground_truth
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.spaces import Arch
from tvt_ray.stages.setup import load_data, make_task
from tvt_ray.students import build_student
from tvt_ray.teachers.provide import get_teacher

_task: ReadingTask | None = None


def _share(task: ReadingTask) -> None:
    global _task  # noqa: PLW0603 (how a process of the pool keeps the probe)
    torch.set_num_threads(1)
    load_plugins(task.plugins)
    _task = task


def _read(arch: Arch) -> dict[str, float]:
    assert _task is not None
    student = build_student(_task.space, arch, _task.num_classes, _task.seed, "cpu")
    cost = _task.space.cost(arch, _task.num_classes)
    sizes = {"parameters": float(cost.params), "FLOPs": float(cost.flops), "depth": float(student.num_blocks)}
    return {**sizes, **capability_forms(student), **teacher_forms(student, _task.probe)}


def read_all(task: ReadingTask, archs: Sequence[Arch], title: str) -> dict[str, Floats]:
    readings = []
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(os.cpu_count(), context, initializer=_share, initargs=(task,)) as pool,
        Meter(title, len(archs), "architectures") as meter,
    ):
        for reading in pool.map(_read, archs):
            readings.append(reading)
            meter.advance(1)
    return {name: np.array([reading[name] for reading in readings]) for name in readings[0]}


def summarise(by_seed: Sequence[Mapping[str, Floats]], accuracies: Mapping[str, Floats]) -> list[dict[str, Any]]:
    known = [by_seed[0][PUBLISHED], by_seed[0]["parameters"]]
    rows = []
    for form in by_seed[0]:
        values = np.array([readings[form] for readings in by_seed])
        mean = values.mean(0)
        partials = {}
        if form not in (PUBLISHED, "parameters"):
            partials = {column: partial_correlation(mean, accuracy, known) for column, accuracy in accuracies.items()}
        rows.append(
            {
                "form": form,
                "kendall": {c: float(stats.kendalltau(mean, accuracy)[0]) for c, accuracy in accuracies.items()},
                "partial": partials,
                "noise_share": noise_share(values) if len(by_seed) > 1 else None,
            }
        )
    return rows


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Markdown, in the order of the forms."""
    columns = list(rows[0]["kendall"])
    titles = " | ".join(f"{c.removesuffix('_kd_acc')}: Kendall | partial (95 %)" for c in columns)
    print(f"| form | {titles} | noise |")
    print("|---" * (2 + 2 * len(columns)) + "|")
    for row in rows:
        cells = []
        for column in columns:
            partial = "-"
            if row["partial"].get(column):
                r, low, high = row["partial"][column]
                partial = f"{r:.2f} ({low:.2f} to {high:.2f})"
            cells += [f"{row['kendall'][column]:.3f}", partial]
        noise = "-" if row["noise_share"] is None else f"{100 * row['noise_share']:.0f} %"
        print(f"| {row['form']} | {' | '.join(cells)} | {noise} |")


def terms(args: argparse.Namespace) -> int:
    config = config_of(args)
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    result: dict[str, Any] = {}
    for path in args.ground_truth:
        for truth in read_ground_truth(path, config.space, data.num_classes):
            by_seed = []
            for seed in range(args.seeds):
                probe = config.probe.model_copy(update={"seed": seed})
                own = config.model_copy(update={"space": truth.space, "seed": seed, "probe": probe})
                archs = [entry.arch for entry in truth.entries]
                by_seed.append(read_all(make_task(own, data, teacher), archs, f"{truth.space.name}, seed {seed}"))
            columns = [column for column in truth.columns if column.endswith("_kd_acc")]
            rows = summarise(by_seed, {column: truth.accuracy(column) for column in columns})
            print(f"\n{path.name}: {len(truth.entries)} architectures, {config.probe.num_images} images\n")
            print_table(rows)
            result[path.stem] = rows
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="terms.py", description="Compares forms of the score's terms.")
    add_options(parser, "config", *COMMON, "num-images")
    parser.add_argument("--ground-truth", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="weights and images to average over")
    parser.set_defaults(command=terms)
    return parser


if __name__ == "__main__":
    sys.exit(run(_parser()))
