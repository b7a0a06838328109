"""Images of files and folders to labels, a batch at a time: for students in torch and in ONNX files alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from tvt_ray.data.layout import walk
from tvt_ray.data.pixels import Colour, Decoding, decode
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import shown

BATCH_SIZE = 64


class Classifier(Protocol):
    """What a student is here."""

    background: Colour  # behind what is transparent in an image

    def transform(self, image: Image.Image) -> Any:
        """An image as the network takes it."""
        ...

    def classify(self, batch: Sequence[Any]) -> list[tuple[str, float]]:
        """Label and probability of images that `transform` gave."""
        ...


@dataclass(frozen=True)
class Wanted:
    """An image to be named."""

    path: Path
    name: str  # as it was given; of one in a folder, with the folder's
    must_be_read: bool  # one that was named itself: in a folder, what cannot be read is passed over and told of


@dataclass(frozen=True)
class Prediction:
    """Of one image: a label with its probability, or why there is none."""

    image: str
    label: str | None
    probability: float | None
    error: str | None = None


def images_at(places: Iterable[Path]) -> list[Wanted]:
    """Images and folders of them, in the order given; a folder's by name, with all folders in it.

    Raises UsageError for a folder that holds no images.
    """
    wanted: list[Wanted] = []
    for place in places:
        here = place.expanduser()
        if not here.is_dir():
            wanted.append(Wanted(here, shown(place), True))
            continue
        found = walk(here).images
        if not found:
            raise UsageError(f"{shown(place)} holds no images")
        wanted += [Wanted(path, shown(place / path.relative_to(here)), False) for path in found]
    return wanted


def predictions(
    student: Classifier, wanted: Sequence[Wanted], max_pixels: int = Decoding.max_pixels
) -> Iterator[Prediction]:
    """In order, a batch at a time. Of a batch what the network takes is held, and not the images.

    Raises UsageError for an image that must be read and cannot be.
    """
    decoding = Decoding(student.background, max_pixels)
    for start in range(0, len(wanted), BATCH_SIZE):
        read = [_read(student, each, decoding) for each in wanted[start : start + BATCH_SIZE]]
        images = [image for image, error in read if error is None]
        named = iter(student.classify(images) if images else ())
        for each, (_, error) in zip(wanted[start : start + BATCH_SIZE], read, strict=True):
            label, probability = next(named) if error is None else (None, None)
            yield Prediction(each.name, label, probability, error)


def _read(student: Classifier, wanted: Wanted, decoding: Decoding) -> tuple[Any, str | None]:
    """The image as the network takes it, or why it cannot be read."""
    try:
        return student.transform(decode(wanted.path, wanted.name, decoding)), None
    except UsageError as error:
        if wanted.must_be_read:
            raise
        return None, str(error)
