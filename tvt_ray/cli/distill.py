"""tvt distill, and distill.py."""

from __future__ import annotations

import argparse
import dataclasses

from tvt_ray.cli.options import COMMON, OPTIONS, add_options, config_of_run, path, plugins_of
from tvt_ray.cli.output import print_json, print_students


def add(parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "Trains the best architectures of a run with the run's teacher."
    add_options(parser, "config", *COMMON)
    parser.add_argument("--run-dir", required=True, metavar="DIR", help=OPTIONS["run-dir"].help)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--top-k", type=int, metavar="K", help="the K best, one of each shape (default: 1)")
    which.add_argument("--arch-id", metavar="ID", help="one architecture of the run")
    which.add_argument("--arch", type=path, metavar="FILE", help="any one of the space, as JSON")
    add_options(parser, "score", "init", "epochs", "num-workers", "resume", "ray-address")
    parser.set_defaults(command=execute, resume_command=resume_command)


def resume_command(args: argparse.Namespace) -> str:
    """What goes on with trainings that were cut short."""
    from tvt_ray.runs.folder import RunFolder

    return RunFolder(args.run_dir).distill_command(args.top_k, args.arch_id, plugins_of(args), args.arch)


def execute(args: argparse.Namespace) -> int:
    """Trains and prints."""
    from tvt_ray.stages.distill import run_distill

    config = config_of_run(args)
    students = run_distill(config, args.run_dir, args.top_k, args.arch_id, args.resume, args.ray_address, args.arch)
    if args.json:
        print_json(args, {"students": [dataclasses.asdict(student) for student in students]})
    else:
        print_students(students)
    return 0
