"""tvt search, and search.py."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvt_ray.cli.options import COMMON, add_options, asked_now, config_of_run, own_config_of, positive
from tvt_ray.cli.output import print_archs, print_json, print_students, seconds_text
from tvt_ray.cli.refine import print_refined
from tvt_ray.progress import say
from tvt_ray.storage.locations import as_location

if TYPE_CHECKING:
    from tvt_ray.runs.config import RunConfig
    from tvt_ray.runs.run import Run
    from tvt_ray.verbs.session import Session

NUM_RUNGS = 10


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Scores untrained ViTs against a trained teacher, without training them, and keeps the best."
    add_options(parser, "config", *COMMON, "num-samples", "searcher", "run-dir", "resume", "seed", "score", "readings")
    add_options(parser, "min-params", "max-params", "min-flops", "max-flops", "max-latency-ms")
    add_options(parser, "gpus-per-trial", "archs-per-trial", "trial")
    parser.add_argument(
        "--refine", type=positive, metavar="N", help="train N shortly afterwards, and rank all by those"
    )
    parser.add_argument("--distill-top-k", type=positive, metavar="K", help="train the K best afterwards")
    parser.add_argument("--by-score", action="store_true", help="list the best by score, not a ladder of sizes")
    parser.add_argument("--dry-run", action="store_true", help="say what would run and how long it would take")
    add_options(parser, "init", "epochs", "num-workers", "ray-address")
    parser.set_defaults(command=execute, goes_on=True)


def execute(args: argparse.Namespace) -> int:
    """Searches, prints, and refines and distils where that was asked for."""
    asked = asked_now(args)
    from tvt_ray.data.transforms import check_augmentation
    from tvt_ray.verbs.init import check_init_setting
    from tvt_ray.verbs.session import Session, check_outside_world

    check_outside_world(args.run_dir or as_location("runs"), args.ray_address)
    config = config_of_run(args) if args.resume else own_config_of(args, asked)
    if args.refine or args.distill_top_k:
        check_augmentation(config.distill.augment)
        check_init_setting(config)
    if args.dry_run:
        return _dry_run(args, config)
    args.run_dir = args.run_dir or as_location(f"runs/{_run_name(config)}")
    with Session.open(config, args.run_dir, resume=args.resume, ray_address=args.ray_address) as session:
        output = _run(args, session)
    if args.json:
        print_json(args, output)
    return 0


def _run(args: argparse.Namespace, session: Session) -> dict[str, Any]:
    """The search and what is asked for after it, each printed as it ends; all of it as JSON has it."""
    from tvt_ray.verbs.distill import distill
    from tvt_ray.verbs.refine import refine
    from tvt_ray.verbs.search import search

    run = search(session)
    assert run.summary is not None
    output: dict[str, Any] = run.summary.to_json()
    if not args.json:
        _print(run, args.by_score)
    if args.refine:
        output["refine"] = summary = refine(session, num_students=args.refine)
        if not args.json:
            print_refined(summary)
    if args.distill_top_k:
        output["students"] = students = distill(session, top_k=args.distill_top_k)
        if not args.json:
            print_students(students)
    return output


def _dry_run(args: argparse.Namespace, config: RunConfig) -> int:
    from tvt_ray.planning.estimate import dry_run

    plan = dry_run(config, args.refine or 0, args.distill_top_k or 0)
    print_json(args, plan) if args.json else print("\n".join(plan.sentences()))
    return 0


def _run_name(config: RunConfig) -> str:
    kind, _, path = config.data.name.partition(":")
    dataset = re.sub(r"[^\w.-]+", "_", "_".join([kind, *Path(path).parts[-1:]]))[-40:]
    return f"{config.space.name}_{dataset}_{time.strftime('%Y%m%d-%H%M%S')}"


def _print(run: Run, by_score: bool) -> None:
    summary, ranking = run.summary, run.ranking()
    assert summary is not None
    if summary.note:
        say(summary.note)
    entries = ranking.top(NUM_RUNGS) if by_score else ranking.ladder(NUM_RUNGS)
    title = "best by score" if by_score else "the best of each size, largest first"
    shapes = f"{summary.num_scored:,} architectures, {summary.num_shapes:,} different shapes"
    known = {each.arch_id: each for each in (*summary.best, *summary.pareto)}
    print_archs(f"{title} ({shapes})", run.config.space, [known[each.row.arch_id] for each in entries])
    failed = f", {summary.num_failed:,} failed" if summary.num_failed else ""
    workers = f"{summary.num_workers} workers on {summary.num_nodes} node" + ("s" if summary.num_nodes != 1 else "")
    print(
        f"read    {', '.join(summary.readings)}\n"
        f"took    {summary.wall_s:,.0f} s{failed}: {seconds_text(summary.seconds)}; "
        f"{summary.archs_per_s:,.0f} architectures a second on {workers}\n"
        f"rows    {run.folder.rows_folder}\nreport  {run.folder.report_file}\n"
        f"train   python distill.py --run-dir {shlex.quote(str(run.folder.path))} --top-k 2"
    )
