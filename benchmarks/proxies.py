"""Measures every proxy against trained accuracies and writes the tables of docs/proxies.md.

python -m benchmarks proxies --ground-truth autoformer_dev.jsonl pit_dev.jsonl --dataset parquet:PATH \
    --teacher resnet56 --teacher-weights FILE

What was scored before comes from the cache. --own names ground truth made with the very teacher (ground_truth.py), and
--own-config the config it was made with.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.proxy_tables import (
    NAMES,
    Columns,
    cost_table,
    distilled,
    fusion_table,
    gain,
    own_table,
    partial_table,
    partials,
    per_column,
    table,
    tau,
    tau_in_band,
    weight_table,
)
from benchmarks.runner import CONFIG, REPO, Record
from tvt_ray.cli.options import add_options, config_of, overrides
from tvt_ray.cli.output import print_table
from tvt_ray.errors import UsageError
from tvt_ray.judging.study import RankRequest, score_ground_truth
from tvt_ray.progress import say
from tvt_ray.proxies import PROXIES
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.inputs import load_data, make_task
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.vits import SPACES, build_student

NUM_COST_ARCHS = 3


def add(parser: argparse.ArgumentParser) -> None:
    add_options(parser, *CONFIG, "num-images", "ray-address")
    parser.add_argument("--ground-truth", type=Path, nargs="+", metavar="FILE", help="published tables")
    parser.add_argument("--own", type=Path, metavar="FILE", help="ground truth made with the teacher")
    parser.add_argument(
        "--own-config", type=Path, metavar="FILE", default=Path(__file__).with_name("ground_truth.yaml")
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="weights and images, for --own")
    parser.add_argument(
        "--doc", type=Path, metavar="FILE", default=REPO / "docs" / "proxies.md", help="whose tables are written"
    )
    parser.add_argument("--cost", action="store_true", help="also time every proxy")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    config, tables, result = config_of(args), dict[str, str](), dict[str, Any]()
    columns: Columns = []
    if args.ground_truth:
        request = RankRequest(tuple(args.ground_truth), NAMES)
        columns = distilled(score_ground_truth(config, request, args.ray_address))
        for key, reading, digits in (("kendall", tau, 3), ("band", tau_in_band, 3), ("gain", gain, 2)):
            values = per_column(columns, reading)
            tables[key] = table(columns, values, digits)
            result[key] = {name: float(np.mean(row)) for name, row in values.items()}
    if args.own:
        own_config = load_config(args.own_config, overrides(args))
        request = RankRequest((args.own,), NAMES, num_seeds=args.seeds)
        (one,) = score_ground_truth(own_config, request, args.ray_address)
        (column,) = one.truth.columns
        tables["own"], rows = own_table(one, column), partials(one, column)
        tables["partial"], result["partial"] = partial_table(rows), rows
        tables["weight"] = weight_table((one, column), columns)
        tables["fusion"] = fusion_table((one, column), columns)
        result["own"] = {name: tau(one, column, name) for name in NAMES}
    if args.cost:
        result["cost"] = record.once("cost", costs, config)
        tables["cost"] = cost_table(result["cost"])
    replace_tables(args.doc, tables)
    return result


def costs(config: RunConfig) -> dict[str, dict[str, float]]:
    """Seconds of each proxy over those of one forward pass, and over those of scoring by tvt; one thread, by space."""
    torch.set_num_threads(1)
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    result: dict[str, dict[str, float]] = {}
    for name, settings in SPACES.items():
        space, rng = settings(), random.Random(0)
        task = make_task(config.with_(space=space), data, teacher)
        seconds: dict[str, float] = {}
        for _ in range(NUM_COST_ARCHS):
            arch = space.sample(rng)
            for key, measured in _time_proxies(task, arch).items():
                seconds[key] = seconds.get(key, 0.0) + measured
        tvt = seconds["build"] + seconds["attention_similarity"] + seconds["l2_norm"]
        result[name] = {f"{key}/forward": value / seconds["forward"] for key, value in seconds.items()}
        result[name] |= {f"{key}/tvt": (seconds["build"] + seconds[key]) / tvt for key in PROXIES}
        say(f"cost: {name} measured on {NUM_COST_ARCHS} architectures")
    return result


def _time_proxies(task: Any, arch: Any) -> dict[str, float]:
    start = time.perf_counter()
    student = build_student(task.space, arch, task.num_classes, task.seed)
    seconds = {"build": time.perf_counter() - start}
    with torch.inference_mode():
        student(task.probe.images)  # warms up
        start = time.perf_counter()
        student(task.probe.images)
        seconds["forward"] = time.perf_counter() - start
    for name, proxy in PROXIES.items():
        start = time.perf_counter()
        proxy.read(student, task.probe)
        seconds[name] = time.perf_counter() - start
    return seconds


def replace_tables(doc: Path, tables: Mapping[str, str]) -> None:
    """Between `<!-- NAME -->` and `<!-- /NAME -->` of a Markdown file."""
    text = doc.read_text()
    for name, content in tables.items():
        before, found, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        if not found or not closing:
            raise UsageError(f"{doc} has no place for the table {name!r}")
        text = f"{before}{found}{content}\n{closing}{after}"
    write_atomically(doc, text.encode())


def show(result: Mapping[str, Any]) -> None:
    measures = [key for key in ("kendall", "band", "gain", "own") if key in result]
    if measures:
        names = sorted(result[measures[0]], key=lambda name: -result[measures[0]][name])
        rows = [[name, *(f"{result[key][name]:.3f}" for key in measures)] for name in names]
        print_table("mean over the columns", ["score", *measures], rows)
