"""Students without torch: an ONNX file that numpy, PIL and onnxruntime run, and images in batches for whoever predicts.

docs/export.md shows the first in twenty lines that need none of this package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.given import Wanted, as_images
from tvt_ray.data.pixels import Colour, Decoding, bounded, parse_colour, to_rgb
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location, as_location, first_line, shown

BATCH_SIZE = 64

# float: float32 (B, 3, S, S), normalised. uint8: (B, S, S, 3), red green blue, which the graph itself normalises.
InputKind: TypeAlias = Literal["float", "uint8"]


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
class Prediction:
    """Of one image: a label with its probability, or why there is none."""

    image: str
    label: str | None
    probability: float | None
    error: str | None = None


def predict(student: Classifier, images: Any) -> list[tuple[str, float]]:
    """The likeliest class of each image, and its probability. `images`: what `as_images` takes.

    Raises UsageError for what is no image.
    """
    read = predictions(student, list(as_images(images)))
    return [(each.label, each.probability) for each in read if each.label is not None and each.probability is not None]


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
        return student.transform(wanted.decoded(decoding)), None
    except UsageError as error:
        if wanted.must_be_read:
            raise
        return None, str(error)


@dataclass(frozen=True)
class OnnxFacts:
    """What the file's metadata says, each under its name, as JSON."""

    labels: tuple[str, ...]  # class i is called labels[i]
    image_size: int  # pixels along each side
    mean: tuple[float, ...]  # by channel, of values in 0 to 1
    std: tuple[float, ...]
    input: InputKind
    background: str  # the colour behind what is transparent in an image
    arch_id: str

    def to_metadata(self) -> dict[str, str]:
        """As ONNX holds it: texts under names."""
        return {name: json.dumps(value) for name, value in vars(self).items()}

    @classmethod
    def from_metadata(cls, entries: Mapping[str, str]) -> OnnxFacts:
        """Raises ValueError or KeyError for what is missing or wrong."""
        values: dict[str, Any] = {name: json.loads(entries[name]) for name in cls.__dataclass_fields__}
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        facts = cls(**{**plain, "labels": tuple(shown(label) for label in plain["labels"])})
        parse_colour(facts.background)
        return facts


class OnnxStudent:
    """A student that onnxruntime runs, with its preprocessing and class names."""

    def __init__(self, model: bytes, num_threads: int = 0) -> None:
        """`num_threads`: 0 takes as many as onnxruntime likes. Raises UsageError for what is no such file."""
        try:
            import onnxruntime as runtime
        except ImportError:
            raise UsageError(
                "an ONNX file is run by onnxruntime, which is not installed: pip install onnxruntime"
            ) from None
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = num_threads, 3
        try:
            self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self.facts = OnnxFacts.from_metadata(self.session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # onnxruntime's own are many, and of no common kind
            raise UsageError(
                f"an ONNX file that tvt export wrote is needed; got another: {first_line(error)}"
            ) from None
        self.class_names, self.image_size = self.facts.labels, self.facts.image_size
        self.background = parse_colour(self.facts.background)

    def transform(self, image: Image.Image) -> NDArray[Any]:
        """A PIL image of any size and mode -> what the graph takes of one image."""
        square = resized(bounded(to_rgb(image, self.background)), self.image_size)
        if self.facts.input == "uint8":
            return np.rint(square).astype(np.uint8)
        mean, std = (np.array(each, np.float32) for each in (self.facts.mean, self.facts.std))
        return ((square / np.float32(255) - mean) / std).transpose(2, 0, 1)

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(B, …) as `transform` gives each -> logits (B, classes)."""
        logits: NDArray[np.float32] = self.session.run(None, {self.session.get_inputs()[0].name: batch})[0]
        return logits

    def predict(self, images: Any) -> list[tuple[str, float]]:
        """The likeliest class of each image, and its probability: PIL images, paths, addresses, bytes, arrays.

        One, or several in a list (data/given.py); an empty list has none. Raises UsageError for what is no image.
        """
        return predict(self, images)

    def classify(self, batch: Sequence[NDArray[Any]]) -> list[tuple[str, float]]:
        """The same of images that `transform` gave, in one batch."""
        logits = self(np.stack(batch)).astype(np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return [(self.class_names[c], float(row[c])) for c, row in zip(shares.argmax(1), shares, strict=True)]


def load_onnx(path: str | Location) -> OnnxStudent:
    """The student in an ONNX file at a path or URI.

    Raises UsageError where there is no such file, it is another model's, or onnxruntime is not installed.
    """
    location = as_location(path) if isinstance(path, str) else path
    if not location.is_file():
        raise UsageError(f"there is no ONNX file {location}")
    try:
        return OnnxStudent(location.read_bytes())
    except UsageError as error:
        raise UsageError(f"{location}: {error}") from None


def resized(image: Image.Image, size: int) -> NDArray[np.float32]:
    """The centred square of an RGB image, resized as for the student's training: (size, size, 3), 0 to 255.

    In floats, so that levels are not rounded on the way.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    channels = [channel.convert("F").resize((size, size), Image.Resampling.BILINEAR) for channel in square.split()]
    return np.stack([np.asarray(channel, np.float32) for channel in channels], axis=2)
