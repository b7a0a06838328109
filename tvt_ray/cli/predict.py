"""tvt predict."""

from __future__ import annotations

import argparse
from pathlib import Path

from tvt_ray.cli.options import OUTPUT, add_options, overrides, plugins_of
from tvt_ray.cli.output import print_json
from tvt_ray.plugins import load_plugins


def add(parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "Classifies images with a trained student."
    parser.add_argument("student", metavar="FOLDER", help="a run's distill/<arch_id>")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    add_options(parser, "set", *OUTPUT)
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Predicts and prints. Images are decoded as the student's training images were."""
    from tvt_ray.data.images import Decoding, decode
    from tvt_ray.exports.folder import load_student
    from tvt_ray.runs.config import load_config
    from tvt_ray.storage.locations import shown

    load_plugins(plugins_of(args))
    settings = load_config(None, overrides(args)).data
    student = load_student(args.student)
    decoding = Decoding(student.background, settings.max_pixels)
    found = student.predict([decode(path.expanduser(), shown(path), decoding) for path in args.images])
    entries = [
        {"image": shown(path), "label": label, "probability": p}
        for path, (label, p) in zip(args.images, found, strict=True)
    ]
    if args.json:
        print_json(args, {"predictions": entries})
    else:
        print("\n".join(f"{entry['image']}  {entry['label']}  {entry['probability']:.3f}" for entry in entries))
    return 0
