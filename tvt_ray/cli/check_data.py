"""tvt check-data."""

from __future__ import annotations

import argparse

from tvt_ray.cli.options import COMMON, add_options, config_of
from tvt_ray.cli.output import print_json, print_table


def add(parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "Reads a dataset, decodes every image, and says what is in it."
    add_options(parser, "config", *COMMON)
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Reads and prints."""
    from tvt_ray.stages.check_data import describe_data

    described = describe_data(config_of(args).data)
    if args.json:
        print_json(args, described)
        return 0
    splits = ("train", "val", "test")
    rows = [[name, *[f"{counts[split]:,}" for split in splits]] for name, counts in described.classes.items()]
    rows.append(["all", *[f"{described.num_images[split]:,}" for split in splits]])
    print_table(f"{described.dataset}: {described.num_classes} classes", ["class", *splits], rows)
    return 0
