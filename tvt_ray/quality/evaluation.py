"""What an evaluation found, as one object: printed, written as JSON, shown as a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tvt_ray.quality.statistics import Quality

DIGITS = 4  # after the point, in JSON


@dataclass(frozen=True)
class Mistake:
    """An image that was named wrong."""

    image: str  # its place in the dataset's folder, or its number
    truth: str
    predicted: str
    confidence: float  # probability of `predicted`, percent


@dataclass(frozen=True)
class Evaluation:
    """A student on a split of a dataset."""

    student: str  # its folder
    dataset: str
    fingerprint: str  # of the dataset's images, labels and splits
    split: str  # train, val, test or all
    quality: Quality
    mistakes: tuple[Mistake, ...]  # the most confident ones, at most
    notes: tuple[str, ...]  # what a reader of the figures should know
    page: str  # evaluation.html
    file: str  # evaluation.json

    def to_json(self) -> dict[str, Any]:
        """What `evaluate --json` prints: the quality's figures beside the rest, with four digits after the point."""
        told = asdict(self)
        quality = told.pop("quality")
        before = {name: told.pop(name) for name in ("student", "dataset", "fingerprint", "split")}
        num_bins = len(self.quality.reliability)
        return dict(rounded({**before, **quality, "num_bins": num_bins, **told}, DIGITS))


def rounded(value: Any, digits: int) -> Any:
    """As JSON holds it, with so many digits after the points of all numbers in it."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {key: rounded(each, digits) for key, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, list | tuple) else value
