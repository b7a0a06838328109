"""Some images of each class as networks see them: a glance finds what no count does."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.preprocess import resize
from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import square_tensor
from tvt_ray.storage.locations import write_atomically

SHOWN = {"train": 8, "test": 4}  # images of a class, by split
CLASSES_PER_SHEET = 20
CELL_RANGE = (64, 128)  # pixels of an image on the sheet, at least and at most
GAP, BLOCK_GAP, MARGIN, HEADER = 4, 20, 16, 92  # pixels
DPI, CHAR_WIDTH, LONGEST_NAME = 100, 8.2, 32
INK, GREY = "#1f2933", "#66788a"

Pixels: TypeAlias = NDArray[np.uint8]


def write_contact_sheets(folder: Path, data: Dataset, image_size: int) -> list[Path]:
    """contact_sheet.png in `folder`, or contact_sheet_1.png and so on where there are many classes.

    Images are the centre squares at `image_size` pixels, chosen at random, the same each time. Raises RunError where
    a file cannot be written.
    """
    starts = range(0, data.num_classes, CLASSES_PER_SHEET)
    paths = []
    for number, start in enumerate(starts, 1):
        labels = range(start, min(start + CLASSES_PER_SHEET, data.num_classes))
        paths.append(folder / (f"contact_sheet_{number}.png" if len(starts) > 1 else "contact_sheet.png"))
        write_atomically(paths[-1], _Sheet(data, labels, image_size).draw())
    return paths


@dataclass(frozen=True)
class _Sheet:
    """Some classes' images: a class a row, a split a block of columns. Lengths are in pixels."""

    data: Dataset
    labels: Sequence[int]
    image_size: int

    @property
    def cell(self) -> int:
        """An image's side."""
        return cell_side(self.image_size)

    @property
    def blocks(self) -> dict[str, int]:
        """Where each split's columns begin; left of the first are the names."""
        longest = max(len(_short(self.data.class_names[label])) for label in self.labels)
        train = MARGIN + math.ceil(CHAR_WIDTH * max(14, longest)) + 2 * GAP
        return {"train": train, "test": train + SHOWN["train"] * (self.cell + GAP) + BLOCK_GAP}

    def top(self, row: int) -> int:
        """Where a row begins."""
        return HEADER + row * (self.cell + GAP)

    def draw(self) -> bytes:
        """As PNG. Every pixel of an image lies where it is put: nothing is resampled."""
        canvas = self._mosaic()
        height, width, _ = canvas.shape
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(canvas, interpolation="none", aspect="auto")
        axes.set_axis_off()
        self._write_header(axes)
        for row, label in enumerate(self.labels):
            self._write_class(axes, row, label)
        return _png(figure)

    def _mosaic(self) -> Pixels:
        width = self.blocks["test"] + SHOWN["test"] * (self.cell + GAP) + MARGIN
        canvas = np.full((self.top(len(self.labels)) + MARGIN, width, 3), 255, np.uint8)
        for row, label in enumerate(self.labels):
            for split, left in self.blocks.items():
                for column, image in enumerate(self._images(split, label)):
                    x, y = left + column * (self.cell + GAP), self.top(row)
                    canvas[y : y + self.cell, x : x + self.cell] = thumbnail(image, self.image_size)
        return canvas

    def _images(self, split_name: str, label: int) -> list[Image.Image]:
        split = self.data.split(split_name)
        mine = np.random.default_rng(label).permutation(np.flatnonzero(split.labels == label))
        return [split[int(place)][0] for place in mine[: SHOWN[split_name]]]

    def _write_header(self, axes: Axes) -> None:
        _write(axes, MARGIN, 26, _short(self.data.name.rpartition("/")[2], 60), size=12, weight="bold")
        seen = f"centre squares at {self.image_size} x {self.image_size} pixels, as networks see them"
        _write(axes, MARGIN, 48, f"{seen}; beside a class the number of its training + test images", GREY)
        for split, title in (("train", "training"), ("test", "test")):
            _write(axes, self.blocks[split], HEADER - 8, title, GREY)

    def _write_class(self, axes: Axes, row: int, label: int) -> None:
        right, middle = self.blocks["train"] - 2 * GAP, self.top(row) + self.cell / 2
        train, test = (int((self.data.split(name).labels == label).sum()) for name in self.blocks)
        _write(axes, right, middle - 2, _short(self.data.class_names[label]), align="right")
        _write(axes, right, middle + 14, f"{train:,} + {test:,}", GREY, size=8, align="right")


def cell_side(image_size: int) -> int:
    """An image's side on a sheet, in pixels: a whole multiple or a whole fraction of the image size."""
    low, high = CELL_RANGE
    if image_size < low:
        return image_size * math.ceil(low / image_size)
    return image_size // math.ceil(image_size / high)


def thumbnail(image: Image.Image, image_size: int) -> Pixels:
    """(cell, cell, 3): the pixels of small images are repeated, those of large ones averaged."""
    seen = resize(square_tensor(image)[None], image_size)[0].permute(1, 2, 0).numpy()
    cell = cell_side(image_size)
    if cell >= image_size:
        seen = seen.repeat(cell // image_size, 0).repeat(cell // image_size, 1)
    else:
        factor = image_size // cell
        seen = seen[: cell * factor, : cell * factor].reshape(cell, factor, cell, factor, 3).mean((1, 3))
    pixels: Pixels = np.rint(255 * seen.clip(0, 1)).astype(np.uint8)
    return pixels


def _write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str = INK,
    size: float = 9,
    weight: str = "normal",
    align: str = "left",
) -> None:
    """`x`, `y`: of the baseline. Texts are shown as they are, dollar signs and all."""
    axes.text(x, y, text, color=colour, fontsize=size, fontweight=weight, ha=align, va="baseline", parse_math=False)


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of scripts that the font lacks: it shows boxes
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
