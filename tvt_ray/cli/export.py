"""tvt export."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tvt_ray.cli.options import OUTPUT, add_options, overrides
from tvt_ray.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tvt_ray.verbs.export import ExportSummary


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = (
        "Writes a trained student as a file that runs without tvt_ray, and checks it against the student."
    )
    parser.add_argument("student", metavar="STUDENT", help="a run's distill/<arch_id>")
    parser.add_argument("--format", default="onnx", metavar="NAME", help="<formats> (default: onnx)")
    parser.add_argument("--int8", action="store_true", help="a second ONNX file of 8 bits, calibrated on images")
    parser.add_argument("--pixels", action="store_true", help="ONNX takes 8-bit pixels, and normalises them itself")
    parser.add_argument("--out", metavar="DIR", help="folder or URI of the files (default: the student's own)")
    add_options(parser, "dataset", "labels", "set", *OUTPUT)
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Exports and prints."""
    from tvt_ray.verbs.export import export

    kinds = {"int8": args.int8, "pixels": args.pixels}
    found = export(args.student, args.format, **kinds, out=args.out, settings=overrides(args))
    print_json(args, found) if args.json else _print(found)
    return 0


def _print(found: ExportSummary) -> None:
    rows = []
    if found.teacher is not None:
        rows.append(
            [f"teacher {found.teacher.name}", _size(found.teacher.bytes), _ms(found.teacher.latency_ms), "", ""]
        )
    rows.append(["student in PyTorch", _size(found.student.bytes), _ms(found.student.latency_ms), "", ""])
    for each in found.files:
        accuracy = "" if each.val_acc is None else f"{each.val_acc:.2f}"
        name = each.path.rpartition("/")[2]
        rows.append([name, _size(each.bytes), _ms(each.latency_ms), f"{each.max_abs_diff:.1e}", accuracy])
    columns = ["", "size", "ms an image", "difference", "val %"]
    print_table(f"{found.student.name}, on {found.device}, {found.threads} threads", columns, rows)
    print(f"difference   the largest of any logit, on {found.checked_on}, by 1 and by 7")
    for each in found.files:
        if each.lost is not None and each.lost_ci95 is not None:
            low, high = each.lost_ci95
            print(f"int8         {each.lost:.2f} points of test accuracy are lost (95 %: {low:.2f} to {high:.2f})")
        print(f"{each.format:<12} {each.path}")
    print(f"card         {found.card}")


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}"
