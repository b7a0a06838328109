"""tvt refine."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from tvt_ray.cli.options import COMMON, add_options, config_of_run
from tvt_ray.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tvt_ray.verbs.refine import Refined, RefineSummary


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Trains a few of a run's students shortly, learns what the dataset rewards, and ranks anew."
    add_options(parser, "config", *COMMON)
    add_options(parser, "run-dir", required=True)
    add_options(parser, "num-students", "init", "epochs", "resume", "ray-address")
    parser.add_argument(
        "--within",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="name the smallest student that is most likely at most so many points worse than the best (default: 1)",
    )
    parser.set_defaults(command=execute, goes_on=True)


def execute(args: argparse.Namespace) -> int:
    """Refines and prints."""
    from tvt_ray.verbs.refine import refine

    asked = {"within": args.within, "resume": args.resume, "ray_address": args.ray_address}
    summary = refine(args.run_dir, settings=config_of_run(args), **asked)
    print_json(args, summary) if args.json else print_refined(summary)
    return 0


def print_refined(summary: RefineSummary) -> None:
    """The best as a table, what was learned, and what comes next."""
    from tvt_ray.refining.halving import MIN_MEASURED
    from tvt_ray.vits.budget import format_count

    def cells(each: Refined) -> list[str]:
        predicted = "" if each.predicted_acc is None else f"{each.predicted_acc:.1f}"
        interval = "" if each.interval is None else "{:.1f} to {:.1f}".format(*each.interval)
        measured = "" if each.measured_acc is None else f"{each.measured_acc:.1f} after {each.epochs}"
        return [each.arch_id, format_count(each.params), predicted, interval, measured]

    title = f"the best by {summary.num_students} students, {summary.epochs_spent:,} epochs; validation, percent"
    columns = ["architecture", "params", f"after {summary.rungs[-1]}", "90 %", "measured"]
    print_table(title, columns, [cells(each) for each in summary.best])
    if all(each.predicted_acc is None for each in summary.best):
        print(f"learned nothing: it takes {MIN_MEASURED} students, so the order is that of the score that needs none")
    for lesson in summary.lessons:
        print(f"learned {lesson}")
    if summary.sure_of_first is not None:
        print(f"sure    the first ends above the second with a chance of {100 * summary.sure_of_first:.0f} %")
    if summary.more_would_change is not None:
        chance = f"{100 * summary.more_would_change:.0f} %"
        print(f"more    another of these is better by half a point or more with a chance of {chance}")
    if summary.smallest is not None:
        small = summary.smallest
        cost = f"{format_count(small.params)} parameters"
        cost += "" if small.latency_ms is None else f", {small.latency_ms:.3g} ms"
        print(f"small   {small.arch_id} ({cost}) {small.sentence}; distill.py --within {small.within:g} trains it")
    if summary.lessons:
        length = f"after {summary.rungs[-1]} of {summary.epochs} epochs"
        print(f"length  all this holds {length}; longer trainings may put other students first")
    print(f"train   python distill.py --run-dir {shlex.quote(summary.run_dir)} --top-k 2")
