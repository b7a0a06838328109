"""tvt profile."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvt_ray.cli.options import OUTPUT, add_options, own_config_of, path, positive
from tvt_ray.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tvt_ray.latency.profile import DeviceProfile


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Measures the parts of a space's students on this machine, for searches with --max-latency-ms."
    add_options(parser, "config", "dataset", "labels", "max-params", "set", *OUTPUT)
    parser.add_argument(
        "--batch-size",
        type=positive,
        action="append",
        metavar="N",
        help="images at a time (default: 1); repeatable",
    )
    parser.add_argument("--device", default="cpu", metavar="KIND", help="cpu (default) or cuda")
    parser.add_argument("--threads", type=positive, metavar="N", help="of PyTorch (default: as many as it takes here)")
    parser.add_argument("--out", type=path, metavar="FILE", help="the profile (default: where searches look for it)")
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Measures, writes and prints."""
    from tvt_ray.verbs.latency import run_profile

    config = own_config_of(args)
    place, profile = run_profile(config, tuple(args.batch_size or [1]), args.device, args.threads, args.out)
    if args.json:
        print_json(args, summary(place, profile))
        return 0
    _print(place, profile, found=args.out is None and args.device == "cpu")
    return 0


def summary(place: Path, profile: DeviceProfile) -> dict[str, Any]:
    """What `profile --json` prints: of each batch size what students take, and how far predictions were off."""
    batches = [
        {
            "batch_size": batch.batch_size,
            "num_parts": len(batch.parts),
            "num_checked": batch.error.num,
            "students_ms": batch.students_ms,
            "median_error": batch.error.median,
            "worst_error": batch.error.worst,
            "fit_median_error": batch.fit_error.median,
        }
        for batch in profile.batches
    ]
    head = profile.model_dump(mode="json", include={"device", "threads", "backend", "torch"})
    return {"path": str(place), **head, "space": profile.space.name, "batches": batches}


def _print(place: Path, profile: DeviceProfile, found: bool) -> None:
    """`found`: searches look there by themselves."""
    columns = ["batch size", "fastest ms", "slowest ms", "parts", "checked", "median error %", "worst %"]
    rows = [
        [
            str(batch.batch_size),
            *(f"{ms:.3g}" for ms in batch.students_ms),
            str(len(batch.parts)),
            str(batch.error.num),
            f"{100 * batch.error.median:.1f}",
            f"{100 * batch.error.worst:.1f}",
        ]
        for batch in profile.batches
    ]
    print_table(f"{profile.device}, {profile.threads} threads, {profile.backend} {profile.torch}", columns, rows)
    named = "" if found else f" --set {shlex.quote(f'budget.latency_profile={place}')}"
    limit = math.sqrt(math.prod(profile.batches[0].students_ms))  # in the middle of what there is
    print(f"profile   {place}\nuse it    python search.py --max-latency-ms {limit:.2g}{named}, with the same settings")
