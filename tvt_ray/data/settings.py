"""Which dataset, how it is read, and how it is split where it does not come split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from tvt_ray.data.pixels import MAX_PIXELS, Decoding, parse_colour
from tvt_ray.storage.locations import AbsolutePath, absolute
from tvt_ray.strict import Seed, Strict


class DataSettings(Strict):
    """Which dataset, how it is read, and how it is split where it does not come split."""

    name: str = "digits"  # a row of DATASETS, with :PATH where it reads a path, which is made absolute
    # where datasets that are known by name are kept and downloaded to
    root: AbsolutePath = Field(Path("data"), validate_default=True)
    # folder in which Parquet files may name images by path; None: the dataset's own alone
    image_root: AbsolutePath | None = None
    download: bool = True  # whether they may be downloaded
    # share of the training images that validate, where there is no validation split
    val_fraction: float = Field(0.1, gt=0, lt=1)
    test_fraction: float = Field(0.2, gt=0, lt=1)  # share of all images that test, where there is no test split
    split_seed: Seed = 0  # decides which images those are
    # colour behind what is transparent in an image, as in black, '#7f7f7f' or rgb(127, 127, 127)
    background: str = "white"
    # width times height of the largest image that is read; the default is PIL's own limit
    max_pixels: PositiveInt = MAX_PIXELS
    # table (.csv, .tsv, .jsonl) that gives the images of an image folder their labels, or a folder with such tables
    # called train, val and test; None: their folders do
    labels: AbsolutePath | None = None
    # which folders of an image folder are the classes: outer, those in PATH; inner, those in which images lie; path,
    # the whole way down to them, as in Apple/rust; None: outer, unless they look like something else
    classes: Literal["outer", "inner", "path"] | None = None
    # what says which images belong together (a patient, a clip), so that a split that is carved keeps them on one side:
    # a pattern whose last group, or whole, is found in their paths, as in 'patient(\d+)'; or a column of a table
    group_by: str | None = None
    # class names that differ in case or blanks alone: true makes them one class, false keeps them apart; None: refused
    merge_names: bool | None = None
    # column of Parquet files with the images, or of a table of labels with their files; None: it is found
    image_column: str | None = None
    # column with the labels; None: the first that is there of label, labels, fine_label … or another that can be it. Of
    # a table of labels also A,B,C: columns called as the classes, with a 1 for a row's own
    label_column: str | None = None

    @field_validator("name")
    @classmethod
    def _absolute(cls, name: str) -> str:
        kind, _, path = name.partition(":")
        return f"{kind}:{absolute(path)}" if path and "://" not in path else name

    @field_validator("background")
    @classmethod
    def _is_colour(cls, text: str) -> str:
        parse_colour(text)
        return text

    @field_validator("group_by")
    @classmethod
    def _is_pattern(cls, text: str | None) -> str | None:
        try:
            re.compile(text or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"a pattern or a column's name; got {text!r}: {error}") from None
        return text

    @property
    def decoding(self) -> Decoding:
        """How the images become pixels."""
        return Decoding(parse_colour(self.background), self.max_pixels)


# What says where data is, and what of it may be read, but not what it is: a run may go on with others.
WHERE = ("name", "root", "image_root", "labels", "download", "max_pixels")
