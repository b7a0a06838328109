"""tvt predict."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tvt_ray.cli.options import OUTPUT, add_options, overrides, path, plugins_of
from tvt_ray.cli.output import print_json
from tvt_ray.errors import UsageError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import say

if TYPE_CHECKING:
    from tvt_ray.inference import Classifier, Prediction

ENDINGS = (".csv", ".json")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that is none
COLUMNS = ("image", "label", "probability", "error")


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Classifies images with a trained student, or with an ONNX file of one (without torch)."
    parser.add_argument("student", metavar="STUDENT", help="a run's distill/<arch_id>, or a .onnx of tvt export")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders of them, patterns in quotes, addresses (https://, s3:// …), - for standard input",
    )
    parser.add_argument("--out", type=path, metavar="FILE", help=".csv or .json: a table of all, in place of lines")
    add_options(parser, "set", *OUTPUT)
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Predicts and prints. Images are decoded as the student's training images were."""
    from tvt_ray.data.given import images_at
    from tvt_ray.inference import predictions
    from tvt_ray.storage.locations import check_writable

    if args.out is not None:
        if args.out.suffix.lower() not in ENDINGS:
            raise UsageError(f"--out ends in {' or '.join(ENDINGS)}, which says how it is written; got {args.out.name}")
        check_writable(args.out)
    images, notes = images_at(args.images)  # before torch is imported
    for note in notes:
        say(note)
    student, max_pixels = _load(args)
    found: list[Prediction] = []
    for each in predictions(student, images, max_pixels):
        found.append(each)
        if each.error is not None:
            say(f"left out: {each.error}")
        elif args.out is None and not args.json:
            print(f"{each.image}  {each.label}  {each.probability:.3f}")
    _finish(args, found)
    return 0


def _load(args: argparse.Namespace) -> tuple[Classifier, int]:
    """The student, and the setting data.max_pixels. An ONNX file is loaded without torch."""
    location, settings = args.student, overrides(args)
    if location.is_file():
        from tvt_ray.inference import load_onnx

        return load_onnx(location), _max_pixels(settings)
    from tvt_ray.exports.folder import load_student
    from tvt_ray.runs.config import RunConfig

    if location.name.lower().endswith(".onnx") and not location.exists():
        raise UsageError(f"there is no ONNX file {location}")
    load_plugins(plugins_of(args))
    max_pixels = RunConfig().with_(settings).data.max_pixels
    return load_student(location), max_pixels


def _max_pixels(settings: Mapping[str, Any]) -> int:
    """Of --set, whose other settings are of no use beside an ONNX file."""
    from tvt_ray.data.pixels import MAX_PIXELS

    data = settings.get("data", {})
    if settings.keys() - {"data"} or data.keys() - {"max_pixels"}:
        raise UsageError(f"with an ONNX file --set takes data.max_pixels alone; got {json.dumps(settings)}")
    value = data.get("max_pixels", MAX_PIXELS)
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"config data.max_pixels: a number of pixels, at least 1; got {value!r}")
    return value


def _finish(args: argparse.Namespace, found: Sequence[Prediction]) -> None:
    """The file and the JSON object. Raises UsageError where no image could be read."""
    from tvt_ray.storage.locations import write_atomically

    named = [each for each in found if each.error is None]
    if not named:
        raise UsageError(f"none of the {len(found):,} images can be read, such as: {found[0].error}")
    result = _as_json(found)
    if args.out is not None:
        text = json.dumps(result, indent=1) + "\n" if args.out.suffix.lower() == ".json" else _as_csv(found)
        write_atomically(args.out, text.encode())
        say(f"{len(named):,} images named, {len(found) - len(named):,} left out: {args.out}")
    if args.json:
        print_json(args, result)


def _as_json(found: Sequence[Prediction]) -> dict[str, Any]:
    read = [each for each in found if each.error is None]
    return {
        "predictions": [{"image": e.image, "label": e.label, "probability": e.probability} for e in read],
        "left_out": [{"image": e.image, "error": e.error} for e in found if e.error is not None],
    }


def _as_csv(found: Sequence[Prediction]) -> str:
    """A line for each image, with a header; what was not read has an error in place of a label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in found:
        probability = "" if each.probability is None else f"{each.probability:.6f}"
        writer.writerow([_cell(each.image), _cell(each.label or ""), probability, _cell(each.error or "")])
    return text.getvalue()


def _cell(text: str) -> str:
    """A spreadsheet takes what begins so for a formula, and runs it; after an apostrophe it is text. Numbers stay."""
    is_number = re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text, re.IGNORECASE)
    return f"'{text}" if text[:1] in FORMULA and not is_number else text
