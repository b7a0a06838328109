"""tvt distill, and distill.py."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tvt_ray.cli.options import COMMON, add_options, config_of_run, path, positive
from tvt_ray.cli.output import print_json, print_students, print_table
from tvt_ray.errors import UsageError

if TYPE_CHECKING:
    from tvt_ray.quality.comparison import Comparison

ALL = "all"


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Trains the best architectures of a run with the run's teacher."
    add_options(parser, "config", *COMMON)
    add_options(parser, "run-dir", required=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--top-k", type=positive, metavar="K", help="the K best, one of each shape (default: 1)")
    which.add_argument("--arch-id", metavar="ID", help="one architecture of the run")
    which.add_argument(
        "--within",
        type=float,
        metavar="POINTS",
        help="of a refined run, the smallest that is most likely no more than so many points worse than its best",
    )
    which.add_argument("--arch", type=path, metavar="FILE", help="any one of the space, as JSON")
    parser.add_argument(
        "--baselines",
        nargs="?",
        const=ALL,
        metavar="NAMES",
        help="train what the student has to beat beside it, and say whether it does: <baselines>, or a score's "
        "name for whom it puts first (default: all but the scores)",
    )
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="of each, with --baselines (default: 1)")
    add_options(parser, "score", "init", "epochs", "num-workers", "resume", "ray-address")
    parser.set_defaults(command=execute, goes_on=True)


def execute(args: argparse.Namespace) -> int:
    """Trains and prints."""
    if args.baselines:
        return _with_baselines(args)
    if args.seeds != 1:
        raise UsageError("--seeds goes with --baselines")
    from tvt_ray.verbs.distill import distill

    which = {"top_k": args.top_k, "arch_id": args.arch_id, "arch_file": args.arch, "within": args.within}
    students = distill(args.run_dir, **which, **_settings(args))
    if args.json:
        print_json(args, {"students": students})
    else:
        print_students(students)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {"settings": config_of_run(args), "resume": args.resume, "ray_address": args.ray_address}


def _with_baselines(args: argparse.Namespace) -> int:
    """Trains the student and its rivals, and prints who is better."""
    if args.top_k not in (None, 1):
        raise UsageError(f"--baselines is about one student; got --top-k {args.top_k}")
    if args.within is not None:
        raise UsageError("--baselines takes --arch-id: tvt refine names the smallest student that is as good")
    from tvt_ray.quality.comparison import to_json
    from tvt_ray.runs.folder import RunFolder
    from tvt_ray.runs.run import TrainedStudent
    from tvt_ray.verbs.compare import compare

    names = None if args.baselines == ALL else args.baselines.split(",")
    which = {"arch_id": args.arch_id, "arch_file": args.arch}
    found = compare(args.run_dir, baselines=names, num_seeds=args.seeds, **which, **_settings(args))
    student = TrainedStudent.read(RunFolder(args.run_dir).distill_folder / found.rivals[0].arch_id)
    if args.json:
        print_json(args, {"students": [student], "baselines": to_json(found)})
    else:
        print_students([student])
        _print_comparison(found)
    return 0


def _print_comparison(found: Comparison) -> None:
    from tvt_ray.report.comparison_page import COLUMNS, rival_cells

    free = [
        ["teacher", "", f"{found.teacher_acc:.2f}"],
        ["majority", "", f"{found.majority:.2f}"],
    ]
    shown = len(COLUMNS) - 1  # the page has the architecture too
    rows = [rival_cells(each, each.name)[:shown] for each in found.rivals] + [
        [*each, *[""] * (shown - len(each))] for each in free
    ]
    print_table(f"test accuracy after {found.epochs} epochs", COLUMNS[:shown], rows)
    for line in (*found.verdict, *(f"left out: {each}" for each in found.left_out), f"page      {found.page}"):
        print(line)
