"""Any image that PIL opens as 8-bit RGB, by the same rules in training, in checks and in prediction."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageColor, ImageOps

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue, each 0 to 255

WHITE: Colour = (255, 255, 255)

# Part of a dataset's fingerprint: it changes with the rules below, so that what was made of other pixels is not reused.
SCHEME = "rgb-1"


def to_rgb(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """An upright 8-bit RGB image of the same picture; `image` stays as it is. Of an animation, the frame it stands at.

    - EXIF orientation is applied, and where it cannot be read there is none.
    - 16 bits are divided by 257, so that 65,535 becomes 255. Integers of 32 bits and floats are scaled from 0 to the
      first of these that holds all values: 255 or 65,535 for integers; 1, 255 or 65,535 for floats. Where none does, or
      there are values below 0, the image's own least value becomes 0 and its largest 255. No value is clipped; one that
      is not finite becomes 0.
    - Whatever is transparent is composed on `background`: alpha channels, and a colour or palette entry that is.
    - CMYK, YCbCr, HSV and LAB are converted, palettes looked up, one bit becomes black and white.

    Raises what PIL raises for an image that is not whole.
    """
    image.load()
    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if image.mode == "LAB":
        return _from_lab(image)
    return _composed(image, background) if image.has_transparency_data else image.convert("RGB")


def parse_colour(text: str) -> Colour:
    """'white', '#7f7f7f', 'rgb(127, 127, 127)' … as PIL knows them. Raises ValueError."""
    try:
        return ImageColor.getcolor(text, "RGB")[:3]  # type: ignore[index, return-value]
    except ValueError:
        raise ValueError(f"a colour is written as in white, '#7f7f7f' or rgb(127, 127, 127); got {text!r}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # broken EXIF data beside whole pixels raises exceptions of many kinds
        return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    grey = Image.fromarray(_scaled(values, image))
    if "transparency" not in image.info:
        return grey
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def _scaled(values: NDArray[Any], image: Image.Image) -> NDArray[np.uint8]:
    if values.dtype.itemsize == 2:
        levels: NDArray[np.uint8] = ((np.arange(65536) + 128) // 257).astype(np.uint8)[values]
        return levels
    if image.mode == "F":
        return _stretched(values, (1, 255, 65535))
    # Older versions of PIL open PNG files of 16 bits as integers of 32.
    return _stretched(values, (65535,) if image.format == "PNG" else (255, 65535))


def _stretched(values: NDArray[Any], tops: tuple[int, ...]) -> NDArray[np.uint8]:
    """Linearly to 0 to 255, from 0 and the first of `tops` that holds all values, or from the least to the largest."""
    finite = np.isfinite(values)
    known = values[finite]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    low, high = (low, high) if top is None else (0.0, float(top))
    scale = 255 / (high - low) if high > low else 0.0
    with np.errstate(invalid="ignore"):  # those that are not finite, which become 0
        return np.where(finite, (values.astype(np.float64) - low) * scale + 0.5, 0).astype(np.uint8)


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only where it converts in place
    return converted


def _composed(image: Image.Image, background: Colour) -> Image.Image:
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")
