"""tvt inspect."""

from __future__ import annotations

import argparse
import dataclasses

from tvt_ray.cli.options import OUTPUT, add_options
from tvt_ray.cli.output import print_json


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = (
        "Says what somebody's run or student holds, by whom it says it was made, and what is odd about it. Nothing of "
        "it is run, nothing outside of it is read, and nothing is written."
    )
    parser.add_argument("folder", metavar="FOLDER", help="a run's, or a student's")
    add_options(parser, *OUTPUT)
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Looks and prints. Exit code 0, whatever is odd: that is what was asked."""
    from tvt_ray.verbs.inspect import inspect

    found = inspect(args.folder)
    if args.json:
        print_json(args, dataclasses.asdict(found))
    else:
        print("\n".join(found.sentences()))
    return 0
