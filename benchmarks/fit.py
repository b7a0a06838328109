"""From a folder of images to a student, with several seeds: how good it is, what the teacher adds, what it takes.

python benchmarks/fit.py DATASET [--seeds 3] [--out runs/fit] [-- any flags of tvt fit]

Each seed is a `tvt fit` of its own (split, teacher, search, student), then `tvt distill --baselines alone` trains the
same student without the teacher. Goes on where it was. Ends with one JSON object: test accuracies in percent by seed,
their means and standard errors, and the seconds that each fit took beside those it had said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from commands import tvt

FITTED = "fit.json"


def one(dataset: str, seed: int, folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """A seed: what was planned, what was fitted, and the student with and without the teacher."""
    stored = folder / FITTED
    if not stored.exists():
        plan = tvt("fit", dataset, "--out", str(folder), "--seed", str(seed), "--dry-run", *flags)
        fitted = tvt("fit", dataset, "--out", str(folder), "--seed", str(seed), *flags)
        stored.write_text(json.dumps({"planned": plan["seconds"], **fitted}))
    fitted = json.loads(stored.read_text())
    compared = tvt("distill", "--run-dir", str(folder), "--baselines", "alone", "--resume")["baselines"]
    by_name = {each["name"]: each["test_acc"] for each in compared["rivals"]}
    return {
        "guided": "alone" in by_name,
        "student": by_name["student"],
        "alone": by_name.get("alone", by_name["student"]),
        "teacher": compared["teacher_acc"],
        "majority": compared["majority"],
        "took_s": round(sum(fitted["seconds"].values())),
        "planned_s": round(sum(fitted["planned"].values())),
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and its standard error where there is more than one."""
    mean = round(statistics.mean(values), 2)
    return mean, round(statistics.stdev(values) / len(values) ** 0.5, 2) if len(values) > 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("runs/fit"), metavar="DIR")
    parser.add_argument("flags", nargs="*", help="of tvt fit, after --")
    args = parser.parse_args()
    found = [one(args.dataset, seed, args.out / f"seed{seed}", args.flags) for seed in range(args.seeds)]
    for seed, each in enumerate(found):
        print(f"seed {seed}: {each}")
    means = {name: mean_and_error([each[name] for each in found]) for name in ("student", "alone", "teacher")}
    print(json.dumps({"seeds": found, "mean_and_standard_error": means}))


if __name__ == "__main__":
    main()
