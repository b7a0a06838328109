"""Which dataset, how it is read, and how it is split where it does not come split."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt, field_validator

from tvt_ray.data.images import MAX_PIXELS, Decoding
from tvt_ray.data.pixels import parse_colour
from tvt_ray.storage.locations import AbsolutePath, absolute
from tvt_ray.strict import Seed, Strict


class DataSettings(Strict):
    """Which dataset, how it is read, and how it is split where it does not come split."""

    name: str = "digits"  # a name in DATASETS, with :PATH for those that read a path, which is made absolute
    # Where torchvision's datasets are kept and downloaded to
    root: AbsolutePath = Field(Path("data"), validate_default=True)
    download: bool = True
    val_fraction: float = Field(0.1, gt=0, lt=1)  # of the training images
    test_fraction: float = Field(0.2, gt=0, lt=1)  # of all images, where there is no test split
    split_seed: Seed = 0
    background: str = "white"  # the colour behind what is transparent in an image
    max_pixels: PositiveInt = MAX_PIXELS  # width times height of the largest image that is read; PIL's own limit
    image_column: str | None = None  # of Parquet files; None: image or img
    label_column: str | None = None  # likewise; None: label, labels or fine_label, the first of them that is there

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

    @property
    def decoding(self) -> Decoding:
        """How the images become pixels."""
        return Decoding(parse_colour(self.background), self.max_pixels)


# What says where data is, and what of it may be read, but not what it is: a run may go on with others.
WHERE = ("name", "root", "download", "max_pixels")
