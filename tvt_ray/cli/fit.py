"""tvt fit."""

from __future__ import annotations

import argparse
import dataclasses
import shlex

from tvt_ray.cli.options import OUTPUT, add_options, overrides
from tvt_ray.cli.output import print_json, print_students


def add(parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "From a folder of images to a trained student: teacher, search and distillation in one."
    parser.add_argument("dataset", metavar="DATASET", help="a folder of class folders, of Parquet files, or <datasets>")
    parser.add_argument("--out", dest="run_dir", required=True, metavar="DIR", help="where it goes: a run folder")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="that it may take (default: 8, more on a slow machine)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and how long it would take")
    add_options(parser, "max-params", "max-flops", "max-latency-ms", "teacher", "teacher-weights", "seed")
    add_options(parser, "set", *OUTPUT, "ray-address")
    parser.set_defaults(command=execute, resume_command=resume_command)


def resume_command(args: argparse.Namespace) -> str:
    """The same call: every phase goes on where it was."""
    return f"tvt fit {shlex.quote(args.dataset)} --out {shlex.quote(str(args.run_dir))}"


def execute(args: argparse.Namespace) -> int:
    """Plans, fits and prints."""
    from tvt_ray.strict import merged
    from tvt_ray.verbs.fit import check_fit, fit, plan_fit

    settings = merged(_seeds(args), overrides(args))
    if args.dry_run:
        check_fit(settings, args.run_dir, args.minutes)
        plan = plan_fit(settings, args.minutes).plan
        print_json(args, plan) if args.json else print("\n".join(plan.sentences()))
        return 0
    fitted = fit(out=args.run_dir, minutes=args.minutes, settings=settings, ray_address=args.ray_address)
    if args.json:
        print_json(args, dataclasses.asdict(fitted))
        return 0
    print_students(fitted.students)
    took = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in fitted.seconds.items())
    print(f"took      {took}\nreport    {fitted.out}/report.html")
    return 0


def _seeds(args: argparse.Namespace) -> dict[str, object]:
    """One seed for all of it: weights, probe, teacher and students."""
    sections = ("probe", "teacher_training", "distill")
    return {} if args.seed is None else {name: {"seed": args.seed} for name in sections}
