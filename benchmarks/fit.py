"""From a folder of images to a student, with several seeds: how good it is beside its rivals, and what it takes.

python -m benchmarks fit DATASET [--seeds 3] [--baselines blockless,whole,drawn] [-- any flags of tvt fit]

Each seed is a `tvt fit` of its own (split, teacher, cut, how to learn, search, student), whose rivals are the largest
class, the frozen teacher and the teacher cut at the student's stage. `--baselines` trains more by the same recipe, as
`tvt fit --baselines` does: the student without its blocks, the whole teacher, the student from drawn weights. The
result: test accuracies in percent by seed, their means and standard errors, the parameters, and the seconds that each
fit took beside those it had said, baselines left out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.runner import Record, tvt
from tvt_ray.cli.output import print_table


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--baselines", metavar="A,B", help="as of tvt fit, trained for each seed")
    parser.add_argument("flags", nargs="*", help="of tvt fit, after --")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    found = [fit_once(args.dataset, seed, args.baselines, args.flags, record) for seed in range(args.seeds)]
    names = [name for name in found[0]["accuracies"] if all(name in each["accuracies"] for each in found)]
    means = {name: mean_and_error([each["accuracies"][name] for each in found]) for name in names}
    return {"seeds": found, "mean_and_standard_error": means}


def fit_once(dataset: str, seed: int, baselines: str | None, flags: Sequence[str], record: Record) -> dict[str, Any]:
    """A seed: what was planned, what was fitted, and its rivals."""
    trained = ("--baselines", baselines) if baselines else ()
    folder, seeded = str(record.folder / f"seed{seed}"), ("--seed", str(seed), *trained, *flags)
    planned = record.once(f"seed{seed}-planned", tvt, "fit", dataset, "--out", folder, *seeded, "--dry-run")
    fitted = record.once(f"seed{seed}-fitted", tvt, "fit", dataset, "--out", folder, *seeded)
    rivals = {each["name"]: each for each in fitted["rivals"]["rivals"]}
    return {
        "accuracies": {name: each["test_acc"] for name, each in rivals.items()},
        "arch_id": fitted["students"][0]["arch_id"],
        "params": rivals["student"]["params"],
        "ms": {name: each["ms"] for name, each in rivals.items() if each["ms"] is not None},
        "took_s": round(sum(fitted["seconds"].values()) - fitted["seconds"].get("baselines", 0)),
        "planned_s": round(sum(planned["seconds"].values()) - planned["seconds"].get("baselines", 0)),
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and its standard error where there is more than one."""
    mean = round(statistics.mean(values), 2)
    return mean, round(statistics.stdev(values) / len(values) ** 0.5, 2) if len(values) > 1 else None


def show(result: Mapping[str, Any]) -> None:
    names = list(result["mean_and_standard_error"])
    rows = [
        [
            str(seed),
            *(f"{each['accuracies'][name]:.1f}" for name in names),
            f"{each['params'] / 1e6:.2f}M",
            f"{each['took_s']} s",
            f"{each['planned_s']} s",
        ]
        for seed, each in enumerate(result["seeds"])
    ]
    means = (result["mean_and_standard_error"][name] for name in names)
    rows.append(["mean", *(f"{mean:.1f}" + (f" ± {error:.1f}" if error else "") for mean, error in means), "", "", ""])
    print_table("test accuracy, percent", ["seed", *names, "params", "took", "planned"], rows)
