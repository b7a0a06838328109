"""A student on a split of a dataset: classes matched by name, what it makes of each image, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tvt_ray.data.layout import counted, listing
from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import eval_loader
from tvt_ray.errors import RunError, UsageError
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
    page: str | None  # evaluation.html; None: it could not be written
    file: str | None  # evaluation.json

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


@dataclass(frozen=True)
class ClassMatch:
    """Where each class of a dataset stands among the student's, and what a person should know of that."""

    places: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def relabel(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) numbers of the dataset's classes -> (n,) numbers of the student's."""
        return np.array(self.places, np.int64)[labels]


def match_classes(known: Sequence[str], found: Sequence[str]) -> ClassMatch:
    """`known`: the student's classes; `found`: those of a dataset, all different.

    By name; a dataset may have some of the classes, in any order. One whose classes are as many numbers has no names:
    the least number is taken to be the student's first class, and so on. Raises UsageError for a class that the
    student does not know.
    """
    unknown = [name for name in found if name not in known]
    if not unknown:
        return ClassMatch(tuple(map(known.index, found)), tuple(_notes(known, found)))
    are_numbers = all(name.isascii() and name.isdecimal() for name in found)
    if are_numbers and len(found) == len(known) and not any(name.isdecimal() for name in known):
        return _by_number(known, found)
    raise UsageError(
        f"a student is evaluated on classes that it knows, and it does not know {listing(unknown)}: "
        f"it knows {listing(known)}; the dataset has {listing(found)}"
    )


def _notes(known: Sequence[str], found: Sequence[str]) -> list[str]:
    missing = [name for name in known if name not in found]
    if missing:
        told = f"the dataset has {len(found)} of the student's {counted(len(known), 'class')}, not {listing(missing)}"
        return [f"{told}: whatever is taken for {'one of those' if missing[1:] else 'that'} is wrong"]
    return [] if list(known) == list(found) else ["the dataset has the classes in another order: matched by name"]


def _by_number(known: Sequence[str], found: Sequence[str]) -> ClassMatch:
    in_order = sorted(found, key=int)
    assumed = listing(f"{number} is {name}" for number, name in zip(in_order, known, strict=True))
    return ClassMatch(
        tuple(map(in_order.index, found)),
        (f"the dataset has numbers and no class names: they are taken in the student's order, {assumed}",),
    )


@torch.inference_mode()
def probabilities_of(
    model: nn.Module, split: Split, image_size: int, on_batch: Callable[[int], None] = lambda images: None
) -> NDArray[np.float64]:
    """Softmax of the logits of each image, in the split's order: (n, classes). Runs where the model's weights are.

    `on_batch` hears how many images each batch had. Raises RunError for a model whose logits are no numbers.
    """
    device, found = next(model.parameters()).device, []
    for images, _ in eval_loader(split, image_size):
        found.append(model(images.to(device)).double().softmax(1).cpu().numpy())
        on_batch(len(images))
    probabilities: NDArray[np.float64] = np.concatenate(found)
    if not np.isfinite(probabilities).all():
        raise RunError("the student's outputs are not finite numbers: its weights are broken, train it anew")
    return probabilities
