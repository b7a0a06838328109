"""Some images of each class as networks see them: a glance finds what no count does."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import resize, square_tensor
from tvt_ray.storage.locations import shown, write_atomically

SHOWN = {"train": 8, "test": 4}  # images of a class, by split
CLASSES_PER_SHEET = 20
CELL_RANGE = (64, 128)  # pixels of an image on the sheet, at least and at most
GAP, BLOCK_GAP, MARGIN, HEADER = 4, 20, 16, 92  # pixels
SMALL, MEDIUM, LARGE = 11, 13, 17  # heights of letters in pixels
LONGEST_NAME = 32
CAPTIONED_COLUMNS, CAPTION_WIDTH, CAPTION = 8, 150, 42  # of images with captions: a line of them, pixels
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


def write_captioned(path: Path, title: str, images: Sequence[Image.Image], captions: Sequence[str], size: int) -> None:
    """Images as networks see them at `size` pixels, each over its caption. Raises RunError where it has no place."""
    cell, columns = max(cell_side(size), CAPTION_WIDTH), min(CAPTIONED_COLUMNS, len(images))
    step, rows = cell + GAP + CAPTION, -(-len(images) // columns)
    sheet = Image.new("RGB", (2 * MARGIN + columns * (cell + 2 * GAP), HEADER // 2 + rows * step + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 30), title, INK, _font(MEDIUM), "ls")
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + number % columns * (cell + 2 * GAP)
        top = HEADER // 2 + number // columns * step
        sheet.paste(Image.fromarray(thumbnail(image, size)), (left, top))
        for line, text in enumerate(caption.split("\n")):
            pen.text((left, top + cell_side(size) + 13 * (line + 1)), _short(text, 22), GREY, _font(SMALL), "ls")
    write_atomically(path, png(sheet))


@dataclass(frozen=True)
class _Sheet:
    """Some classes' images: a class a row, a split a block of columns. Lengths are in pixels."""

    data: Dataset
    labels: Sequence[int]
    image_size: int

    @property
    def step(self) -> int:
        """From one image to the next."""
        return cell_side(self.image_size) + GAP

    @functools.cached_property
    def blocks(self) -> dict[str, int]:
        """Where each split's columns begin; left of the first are the names."""
        texts = [text for label in self.labels for text in self._texts(label)]
        train = MARGIN + math.ceil(max(_font(MEDIUM).getlength(text) for text in texts)) + 2 * GAP
        return {"train": train, "test": train + SHOWN["train"] * self.step + BLOCK_GAP}

    def _texts(self, label: int) -> tuple[str, str]:
        train, test = (int((self.data.split(name).labels == label).sum()) for name in SHOWN)
        return _short(self.data.class_names[label]), f"{train:,} + {test:,}"

    def draw(self) -> bytes:
        """As PNG. Every pixel of an image lies where it is put: nothing is resampled."""
        width = self.blocks["test"] + SHOWN["test"] * self.step + MARGIN
        sheet = Image.new("RGB", (width, HEADER + len(self.labels) * self.step + MARGIN), "white")
        self._write_header(pen := ImageDraw.Draw(sheet))
        for row, label in enumerate(self.labels):
            top = HEADER + row * self.step
            for split, left in self.blocks.items():
                for column, image in enumerate(self._images(split, label)):
                    pixels = thumbnail(image, self.image_size)
                    sheet.paste(Image.fromarray(pixels), (left + column * self.step, top))
            right, middle = self.blocks["train"] - 2 * GAP, top + (self.step - GAP) / 2
            name, counts = self._texts(label)
            pen.text((right, middle - 2), name, INK, _font(MEDIUM), "rs")
            pen.text((right, middle + 14), counts, GREY, _font(SMALL), "rs")
        return png(sheet)

    def _images(self, split_name: str, label: int) -> list[Image.Image]:
        split = self.data.split(split_name)
        mine = np.random.default_rng(label).permutation(np.flatnonzero(split.labels == label))
        return [split[int(place)][0] for place in mine[: SHOWN[split_name]]]

    def _write_header(self, pen: ImageDraw.ImageDraw) -> None:
        pen.text((MARGIN, 26), _short(self.data.name.rpartition("/")[2], 60), INK, _font(LARGE), "ls")
        seen = f"centre squares at {self.image_size} x {self.image_size} pixels, as networks see them"
        counts = "beside a class the number of its training + test images"
        pen.text((MARGIN, 48), f"{seen}; {counts}", GREY, _font(MEDIUM), "ls")
        for split, title in (("train", "training"), ("test", "test")):
            pen.text((self.blocks[split], HEADER - 8), title, GREY, _font(MEDIUM), "ls")


def png(image: Image.Image) -> bytes:
    """An image as a PNG file's content."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


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


@functools.cache
def _font(height: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, which has Latin, Greek and Cyrillic letters. Of other scripts it shows boxes."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), height)


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    name = shown(name)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
