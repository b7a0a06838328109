"""The student that search and refine choose, against hand-designed ones, the largest, and whom single scores put first.

python -m benchmarks headline --dataset parquet:PATH --teacher-weights FILE [--num-train 5000] [--seeds 3]

Takes a part of the dataset; then search, refine, and `tvt distill --baselines`, by headline.yaml (--config). The
result: the comparison, and what refine spent.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.runner import Record, tvt, write_part
from tvt_ray.cli.output import print_table

RIVALS = "largest,deit,pit,capacity,tvt"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, metavar="NAME")
    parser.add_argument("--teacher-weights", required=True, metavar="FILE")
    parser.add_argument("--config", default=str(Path(__file__).with_suffix(".yaml")), metavar="FILE")
    parser.add_argument("--num-train", type=int, default=5000, metavar="N", help="validation is carved from them")
    parser.add_argument("--num-test", type=int, default=2000, metavar="N")
    parser.add_argument("--rivals", default=RIVALS, metavar="NAMES")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    run = str(record.folder / "run")
    sizes = {"train": {"train": args.num_train}, "test": {"test": args.num_test}}
    asked = ["--dataset", write_part(args.dataset, record.folder / "data", sizes, seed=0)]
    asked += ["--teacher-weights", str(Path(args.teacher_weights).absolute())]
    resume = ["--resume"] if Path(run).exists() else []
    record.once("search", tvt, "search", "--config", args.config, *asked, "--run-dir", run, *resume)
    refined = record.once("refine", tvt, "refine", "--run-dir", run, "--resume")
    rivals = ["--baselines", args.rivals, "--seeds", str(args.seeds)]
    compared = record.once(f"{args.seeds}-seeds", tvt, "distill", "--run-dir", run, *rivals, "--resume")
    return {"epochs_of_refine": refined["epochs_spent"], **compared["baselines"]}


def show(result: Mapping[str, Any]) -> None:
    rows = [
        [each["name"], each["arch_id"], f"{each['test_acc']:.2f}", ", ".join(f"{acc:.1f}" for acc in each["test_accs"])]
        for each in result["rivals"]
    ]
    print_table("test accuracy, percent", ["student", "architecture", "mean", "by seed"], rows, num_texts=2)
