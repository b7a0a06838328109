"""Which dataset, and how it is split where it does not come split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tvt_ray.data.splits import Split


class DataSettings(BaseModel):
    """Which dataset, and how it is split where it does not come split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "digits"  # a name in DATASETS, with :PATH for those that read a path
    root: Path = Path("data")  # where torchvision's datasets are kept and downloaded to
    download: bool = True
    val_fraction: float = Field(0.1, gt=0, lt=1)  # of the training images
    test_fraction: float = Field(0.2, gt=0, lt=1)  # of all images, where there is no test split
    split_seed: int = 0


# What a loader gives: training images, test images or None where they are yet to be carved, validation likewise.
Parts = tuple[Split, Split | None, Split | None, Sequence[str]]
