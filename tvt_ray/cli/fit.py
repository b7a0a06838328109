"""tvt fit."""

from __future__ import annotations

import argparse

from tvt_ray.cli.options import OUTPUT, above_zero, add_options, asked_now
from tvt_ray.cli.output import print_json, print_rivals, print_students, seconds_text

SEEDED = ("probe", "teacher_training", "distill")  # sections whose seed --seed is too


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "From a folder of images to a trained student: teacher, search and distillation in one."
    parser.add_argument("dataset", metavar="DATASET", help="a folder of class folders, of Parquet files, or <datasets>")
    parser.add_argument("--out", dest="run_dir", required=True, metavar="DIR", help="where it goes: a run folder")
    parser.add_argument(
        "--minutes", type=above_zero, metavar="N", help="that it may take (default: 8, more on a slow machine)"
    )
    parser.add_argument(
        "--stem",
        choices=["auto", "patch"],
        default="auto",
        help="auto (default): students begin with stages of a pretrained teacher, or, where there is none, with such "
        "stages from chance; patch: plain ViTs",
    )
    parser.add_argument(
        "--baselines",
        metavar="NAMES",
        help="train these by the student's recipe too, beyond the minutes, and report them beside it: <baselines>, or "
        "a score's name for whom it puts first",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and how long it would take")
    add_options(
        parser, "labels", "group-by", "max-params", "max-flops", "max-latency-ms", "teacher", "teacher-weights", "seed"
    )
    add_options(parser, "set", *OUTPUT, "ray-address")
    parser.set_defaults(command=execute, goes_on=True)


def execute(args: argparse.Namespace) -> int:
    """Plans, fits and prints."""
    from tvt_ray.strict import merged

    seeds = {} if args.seed is None else {name: {"seed": args.seed} for name in SEEDED}
    settings = merged(seeds, asked_now(args))
    from tvt_ray.verbs.fit import check_fit, fit, plan_fit

    baselines = args.baselines.split(",") if args.baselines else []
    if args.dry_run:
        check_fit(settings, args.run_dir, args.minutes, baselines, args.ray_address)
        plan = plan_fit(settings, args.minutes, args.stem, len(baselines)).plan
        print_json(args, plan) if args.json else print("\n".join(plan.sentences()))
        return 0
    fitted = fit(
        out=args.run_dir,
        minutes=args.minutes,
        stem=args.stem,
        baselines=baselines,
        settings=settings,
        ray_address=args.ray_address,
    )
    if args.json:
        print_json(args, fitted)
        return 0
    print_students(fitted.students)
    print_rivals(fitted.rivals)
    print(f"took      {seconds_text(fitted.seconds)}\nreport    {fitted.out}/report.html")
    return 0
