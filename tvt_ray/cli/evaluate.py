"""tvt evaluate."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tvt_ray.cli.options import OUTPUT, add_options, overrides, path
from tvt_ray.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tvt_ray.quality.evaluation import Evaluation


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Says how good a trained student is on a dataset, as figures and as a page."
    parser.add_argument("student", metavar="STUDENT", help="a run's distill/<arch_id>")
    add_options(parser, "dataset", "labels", "set", *OUTPUT)
    parser.add_argument("--split", default="test", help="train, val, test (default) or all")
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="where the page goes (default: RUN/evaluations, or beside the student's folder)",
    )
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Evaluates and prints."""
    from tvt_ray.verbs.evaluate import evaluate

    found = evaluate(args.student, split=args.split, out=args.out, settings=overrides(args))
    print_json(args, found.to_json()) if args.json else _print(found)
    return 0


def _print(found: Evaluation) -> None:
    from tvt_ray.quality.statistics import confusions
    from tvt_ray.report.evaluation_page import CLASS_COLUMNS, calibration_text, class_cells, verdict

    quality = found.quality
    title = f"{found.dataset}, {found.split}: {quality.num_images:,} images"
    print_table(title, CLASS_COLUMNS, [class_cells(each) for each in quality.classes])
    print(f"accuracy     {verdict(quality)}")
    print(f"balanced     {quality.balanced_accuracy:.2f} %, the mean recall of the classes")
    print(f"calibration  {calibration_text(quality)}")
    print(f"likelihood   {quality.nll:.4f} nats (negative, mean), Brier score {quality.brier:.4f}")
    for true, taken, count in confusions(quality, 3):
        print(f"confused     {true} taken for {taken}: {count:,}")
    if found.page is not None:
        print(f"page         {found.page}\nfigures      {found.file}")
