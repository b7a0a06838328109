"""tvt score."""

from __future__ import annotations

import argparse

from tvt_ray.cli.options import COMMON, add_options, config_of_run, own_config_of, path
from tvt_ray.cli.output import print_json


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Scores one architecture and prints its readings."
    add_options(parser, "config", *COMMON)
    parser.add_argument("--arch", type=path, required=True, metavar="FILE", help="the architecture as JSON")
    add_options(parser, "run-dir", "seed", "score", "readings")
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Reads and prints; on the scale of --run-dir's calibration where that is given."""
    from tvt_ray.verbs.score import score_one

    config = config_of_run(args) if args.run_dir else own_config_of(args)
    scored = score_one(config, args.arch, args.run_dir)
    if args.json:
        print_json(args, scored)
        return 0
    print(f"{scored.arch_id}\n{config.score.zero_cost:22} {scored.score:.4f}")
    for name, value in {"params": scored.params, "flops": scored.flops, **scored.components}.items():
        print(f"{name:22} {value:,}" if isinstance(value, int) else f"{name:22} {value:.6g}")
    return 0
