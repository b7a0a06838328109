"""tvt check-data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tvt_ray.cli.options import COMMON, add_options, own_config_of, path
from tvt_ray.cli.output import print_json, print_table
from tvt_ray.data.layout import SPLITS, counted
from tvt_ray.errors import UsageError

if TYPE_CHECKING:
    from tvt_ray.data.looking import Size
    from tvt_ray.data.survey import Sizes, Survey, Told
    from tvt_ray.verbs.check_data import DataDescription, Imbalance


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Reads a dataset, decodes every image, and says what is in it and what looks wrong."
    parser.add_argument("path", nargs="?", metavar="DATASET", help="the same as --dataset")
    add_options(parser, "config", *COMMON)
    parser.add_argument("--out", type=path, metavar="DIR", help="also draw some images of each class into this folder")
    parser.add_argument(
        "--no-labels", action="store_true", help="leave out labels that look wrong to a pretrained network: no minutes"
    )
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Reads and prints."""
    if args.path is not None and args.dataset is not None:
        raise UsageError(f"one dataset at a time: {args.path} or --dataset {args.dataset}")
    args.dataset = args.path if args.dataset is None else args.dataset
    config = own_config_of(args)
    from tvt_ray.data.datasets import check_outside
    from tvt_ray.planning.recipe import OWN
    from tvt_ray.storage.locations import check_writable
    from tvt_ray.verbs.check_data import describe_data

    if args.out:
        check_outside(args.out, config.data.name)
        check_writable(args.out / "contact_sheet.png")
    with_labels = not args.no_labels and config.data.name.startswith(OWN)
    described = describe_data(config.data, config.space.image_size, args.out, with_labels)
    if args.json:
        print_json(args, described)
        return 0
    rows = [[name, *[f"{counts[split]:,}" for split in SPLITS]] for name, counts in described.classes.items()]
    rows.append(["all", *[f"{described.num_images[split]:,}" for split in SPLITS]])
    print_table(f"{described.dataset}: {described.num_classes} classes", ["class", *SPLITS], rows)
    for title, text in _lines(described):
        print(f"{title:11} {text}")
    return 0


def _lines(described: DataDescription) -> list[tuple[str, str]]:
    """(title, text) of all that is no count by class."""
    from tvt_ray.data.survey import tell

    images = described.images
    return [
        *[(name, described.origins[name]) for name in SPLITS if name in described.origins],
        ("balance", _balance(described.imbalance)),
        ("sizes", _sizes(images.sizes)),
        ("modes", ", ".join(f"{mode} {count:,}" for mode, count in images.modes.items())),
        *_told(images.single_value, "of a single value"),
        *_told(images.few_levels, f"with values at most {images.num_levels} of 255 apart"),
        *[("duplicates", sentence) for sentence in tell(described.duplicates) or ["none"]],
        ("image size", _image_size(images)),
        *[("labels", sentence) for sentence in (described.labels.sentences() if described.labels else [])],
        *[("note", note) for note in described.notes],
        *[("drawn", sheet) for sheet in described.contact_sheets],
        *([("drawn", described.labels.sheet)] if described.labels and described.labels.sheet else []),
    ]


def _image_size(images: Survey) -> str:
    size, larger = images.recommended_image_size, images.image_size_with_gpu
    if size == larger:
        return f"{size} pixels suit these images"
    if size > larger:
        return f"{size} pixels, for stages of a pretrained teacher; the images themselves allow {larger}"
    return f"{size} pixels without a GPU; the images allow {larger}"


def _balance(found: Imbalance) -> str:
    spread = f"{found.largest} has {found.ratio:.3g} times the training images of {found.smallest}"
    even = "every class has as many training images"
    guess = f"saying one class always is right for {found.majority_percent['test']:.1f} % of test at most"
    return f"{even if found.ratio == 1 else spread}; {guess}"


def _sizes(sizes: Sizes) -> str:
    if sizes.smallest == sizes.largest:
        return f"all {_by(sizes.median)}"
    return f"smallest {_by(sizes.smallest)}, median {_by(sizes.median)}, largest {_by(sizes.largest)}"


def _by(size: Size) -> str:
    return f"{size.width} x {size.height}"


def _told(told: Told, what: str) -> list[tuple[str, str]]:
    return [("empty", f"{counted(told.num_images, 'image')} {what}, such as {told.example}")] if told.example else []
