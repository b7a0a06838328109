"""From a folder of images to a student, with several seeds: how good it is, what the teacher adds, what it takes.

python -m benchmarks fit DATASET [--seeds 3] [-- any flags of tvt fit]

Each seed is a `tvt fit` of its own (split, teacher, search, student), then `tvt distill --baselines alone` trains the
same student without the teacher. The result: test accuracies in percent by seed, their means and standard errors, and
the seconds that each fit took beside those it had said.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.runner import Record, tvt
from tvt_ray.cli.output import print_table

ACCURACIES = ("student", "alone", "teacher")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("flags", nargs="*", help="of tvt fit, after --")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    found = [fit_once(args.dataset, seed, args.flags, record) for seed in range(args.seeds)]
    means = {name: mean_and_error([each[name] for each in found]) for name in ACCURACIES}
    return {"seeds": found, "mean_and_standard_error": means}


def fit_once(dataset: str, seed: int, flags: Sequence[str], record: Record) -> dict[str, Any]:
    """A seed: what was planned, what was fitted, and the student with and without the teacher."""
    folder, seeded = str(record.folder / f"seed{seed}"), ("--seed", str(seed), *flags)
    planned = record.once(f"seed{seed}-planned", tvt, "fit", dataset, "--out", folder, *seeded, "--dry-run")
    fitted = record.once(f"seed{seed}-fitted", tvt, "fit", dataset, "--out", folder, *seeded)
    alone = ("distill", "--run-dir", folder, "--baselines", "alone", "--resume")
    compared = record.once(f"seed{seed}-compared", tvt, *alone)["baselines"]
    by_name = {each["name"]: each["test_acc"] for each in compared["rivals"]}
    return {
        "guided": "alone" in by_name,
        "student": by_name["student"],
        "alone": by_name.get("alone", by_name["student"]),
        "teacher": compared["teacher_acc"],
        "majority": compared["majority"],
        "took_s": round(sum(fitted["seconds"].values())),
        "planned_s": round(sum(planned["seconds"].values())),
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and its standard error where there is more than one."""
    mean = round(statistics.mean(values), 2)
    return mean, round(statistics.stdev(values) / len(values) ** 0.5, 2) if len(values) > 1 else None


def show(result: Mapping[str, Any]) -> None:
    rows = [
        [str(seed), *(f"{each[name]:.1f}" for name in ACCURACIES), f"{each['took_s']} s", f"{each['planned_s']} s"]
        for seed, each in enumerate(result["seeds"])
    ]
    means = (result["mean_and_standard_error"][name] for name in ACCURACIES)
    rows.append(["mean", *(f"{mean:.1f}" + (f" ± {error:.1f}" if error else "") for mean, error in means), "", ""])
    print_table("test accuracy, percent", ["seed", *ACCURACIES, "took", "planned"], rows)
