"""Any image that PIL opens as 8-bit RGB, by the same rules in training, in checks and in prediction."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import (
    ExifTags,
    Image,
    ImageChops,
    ImageCms,
    ImageColor,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line, shown

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue, each 0 to 255
WHITE: Colour = (255, 255, 255)
# Part of a dataset's fingerprint: it changes with the rules below, so that what was made of other pixels is not reused.
SCHEME = "rgb-3"
# What is tried, by content: PIL's own decoders of images that people have. Others start programs (EPS: Ghostscript), or
# have had few eyes on them. HEIF is read where a package has taught PIL to.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "HEIF", "TGA", "PCX", "SGI")
SAME_LEVELS = 3  # of 255 by which sRGB as others wrote it may be off, in dark tones above all
CMYK_MARKER = "adobe"  # of PIL's info of a JPEG: its program wrote CMYK the other way round, as PIL takes all to be
PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # bytes of text in a PNG, beside which its pixels are whole
PIL_PIXELS = 89_478_485  # what PIL takes for a usual image
MAX_PIXELS = 2 * PIL_PIXELS  # beyond, PIL refuses an image
_LIFTED = threading.Lock()  # of who has lifted PIL's limit


@dataclass(frozen=True)
class Decoding:
    """How an encoded image becomes pixels."""

    background: Colour = WHITE  # behind what is transparent
    max_pixels: int = MAX_PIXELS  # width times height of the largest image that is read


DECODING = Decoding()


@contextlib.contextmanager
def opened(data: bytes | Path, name: str, decoding: Decoding = DECODING) -> Iterator[Image.Image]:
    """An image whose header was read, before its pixels are.

    Raises UsageError that names the image where it is missing, larger than `decoding` allows, or, in the block, broken.
    """
    try:
        with _open(data, name, decoding) as image:
            _check_size(image.width, image.height, name, decoding)
            yield _by_tifffile(data, name, decoding) if _has_wide_planes(image) else image
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"image {name} is listed but not there") from None
    except UnidentifiedImageError:  # whose own words name an object in memory
        raise UsageError(f"corrupt image {name}: it is none of {', '.join(formats())}") from None
    except MemoryError:
        raise UsageError(f"image {name} does not fit into memory; data.max_pixels bounds what is read") from None
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error … for broken files
        raise UsageError(f"corrupt image {name}: {first_line(error)}") from None


def decode(data: bytes | Path, name: str, decoding: Decoding = DECODING) -> Image.Image:
    """An RGB image, by the rules of `to_rgb`. One that PIL takes for huge is made smaller by a whole factor.

    Raises UsageError that names the image when it cannot be decoded whole, or is larger than `decoding` allows.
    """
    try:
        return _decode(data, name, decoding)
    except UsageError:
        mended = _with_its_end(data)
        if mended is None:
            raise
        return _decode(mended, name, decoding)


def _decode(data: bytes | Path, name: str, decoding: Decoding) -> Image.Image:
    with opened(data, name, decoding) as image:
        image.draft(image.mode, _bounds(image))  # JPEG decodes at a smaller scale as well
        return bounded(to_rgb(image, decoding.background))


def _with_its_end(data: bytes | Path) -> bytes | None:
    """A JPEG that lacks nothing but the marker of its end, as some cameras write it, with that marker; else None.

    Of a picture that is all there, whatever stands before the marker changes no pixel. Of one that was cut off it
    becomes pixels. (A progressive one may have been cut off between two scans, which does not show.)
    """
    try:
        if isinstance(data, Path) and not stat.S_ISREG(data.stat().st_mode):
            return None
        content = data.read_bytes() if isinstance(data, Path) else data
        if not content.startswith(JPEG_START):
            return None
        pictures = []
        for rest in (b"", CUT_OFF):
            with Image.open(io.BytesIO(content + rest + JPEG_END), formats=["JPEG"]) as image:
                if image.info.get("progressive"):
                    return None
                pictures.append(np.asarray(image))
    except Exception:  # what is wrong with it was found out before
        return None
    plain, longer = pictures
    return content + JPEG_END if np.array_equal(plain, longer) else None


JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
CUT_OFF = b"\x55" * 4096  # what a decoder makes pixels of where some are missing


def bounded(image: Image.Image) -> Image.Image:
    """The mean of so many pixels by so many that PIL's operations take the image. Most are as they were."""
    factor = math.ceil(math.sqrt(image.width * image.height / PIL_PIXELS))
    return image.reduce(factor) if factor > 1 else image


def to_rgb(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """An upright 8-bit RGB image of the same picture; `image` stays as it is. Of an animation, the frame it stands at.

    - EXIF orientation is applied, and where it cannot be read there is none.
    - 16 bits are divided by 257, so that 65,535 becomes 255. Integers of 32 bits and floats are scaled from 0 to the
      first of these that holds all values: 255 or 65,535 for integers; 1, 255 or 65,535 for floats. Where none does, or
      there are values below 0, the image's own least value becomes 0 and its largest 255. No value is clipped; one that
      is not finite becomes 0.
    - Whatever is transparent is composed on `background`: alpha channels, and a colour or palette entry that is.
    - CMYK, YCbCr, HSV and LAB are converted, palettes looked up, one bit becomes black and white.
    - Colours are those of the profile that the image holds (ICC), as sRGB; one that cannot be read counts as none.

    Raises what PIL raises for an image that is not whole.
    """
    image.load()
    if image.mode == "CMYK" and image.format == "JPEG" and CMYK_MARKER not in image.info:
        inverted = ImageChops.invert(image)
        inverted.info.update(image.info)
        image = inverted
    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if image.mode == "LAB":
        return _from_lab(image)
    image = _in_srgb(image)
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
        levels: NDArray[np.uint8] = _LEVELS[values]
        return levels
    if image.mode == "F":
        return _stretched(values, (1, 255, 65535))
    # Older versions of PIL open PNG files of 16 bits as integers of 32.
    return _stretched(values, (65535,) if image.format == "PNG" else (255, 65535))


_LEVELS = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # of 16 bits in 8


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


def _in_srgb(image: Image.Image) -> Image.Image:
    """In the colours of sRGB, by the profile that the image holds; as it is without one."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return image
    colours = image.convert("RGB") if image.mode in ("P", "RGBX") and not image.has_transparency_data else image
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    if alpha is not None:
        colours = image.convert("RGB" if image.mode == "RGBA" else "L")
    transform = _to_srgb(profile, colours.mode) if colours.mode in ("RGB", "L", "CMYK") else None
    if transform is None:
        return image
    converted = transform.apply(colours)
    if alpha is not None:
        converted.putalpha(alpha)
    elif "transparency" in image.info and image.mode == "RGB":  # a colour of before
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


@functools.lru_cache(64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None for sRGB itself, for a profile of other channels than the image's, and for one that cannot be read."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether colours stay what they are, but for rounding: what a profile is called says nothing of its colours."""
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)
    after = np.asarray(transform.apply(Image.fromarray(colours)))
    return bool(np.abs(after.astype(int) - colours).max() <= SAME_LEVELS)


def _composed(image: Image.Image, background: Colour) -> Image.Image:
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")


def _bounds(image: Image.Image) -> tuple[int, int]:
    """What `bounded` makes of it, or a little more."""
    factor = max(1.0, math.sqrt(image.width * image.height / PIL_PIXELS))
    return math.ceil(image.width / factor), math.ceil(image.height / factor)


def _open(data: bytes | Path, name: str, decoding: Decoding) -> Image.Image:
    if isinstance(data, Path) and not stat.S_ISREG(data.stat().st_mode):  # a pipe would be waited for
        raise UsageError(f"image {shown(data)} is no file")

    def image() -> Image.Image:
        return Image.open(_stream(data), formats=formats())

    try:
        return image()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # data.max_pixels says what is too large
        with _any_size():
            return image()
    except UnidentifiedImageError:
        if not _is_tiff(data):
            raise
        return _by_tifffile(data, name, decoding)  # of floats in several channels, say


def _stream(data: bytes | Path) -> io.BytesIO | Path:
    return io.BytesIO(data) if isinstance(data, bytes) else data


def _is_tiff(data: bytes | Path) -> bool:
    if isinstance(data, bytes):
        return data.startswith(TIFF)
    with data.open("rb") as file:
        return file.read(4) in TIFF


def _has_wide_planes(image: Image.Image) -> bool:
    """TIFF with a plane of 16 bits for each channel, as tifffile writes RGB: PIL takes planes for pixels."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    return tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and len(bits) > 1 and max(bits) > 8


def _by_tifffile(data: bytes | Path, name: str, decoding: Decoding) -> Image.Image:
    """The first page of a TIFF that PIL does not read, or reads wrong, as 8 bits by the rules of `to_rgb`.

    Raises OSError where tifffile is not here, ValueError for what is no picture of 1, 3 or 4 channels.
    """
    try:
        import tifffile
    except ImportError:
        raise OSError(
            "a TIFF of a kind that Pillow does not read; `pip install tifffile imagecodecs` has it read"
        ) from None
    with tifffile.TiffFile(_stream(data)) as file:
        page = file.pages.first
        if page.axes not in TIFF_AXES:
            raise ValueError(f"a TIFF with the axes {page.axes}; one page of 1, 3 or 4 channels is read")
        _check_size(page.imagewidth, page.imagelength, name, decoding)
        pixels = page.asarray()
    if page.axes == "SYX":
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        raise ValueError(f"a TIFF with {pixels.shape[2]} channels; 1, 3 or 4 are read")
    if pixels.dtype == np.uint16:
        pixels = _LEVELS[pixels]
    elif pixels.dtype != np.uint8:
        pixels = _stretched(pixels, (1, 255, 65535) if pixels.dtype.kind == "f" else (255, 65535))
    return Image.fromarray(np.ascontiguousarray(pixels))


TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such files begin, those of 64-bit offsets among them
TIFF_AXES = ("YX", "YXS", "SYX")


@functools.cache
def formats() -> tuple[str, ...]:
    """Of FORMATS those that PIL has here."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """PIL's limit belongs to the whole process: one thread at a time lifts it, and puts it back."""
    with _LIFTED:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(width: int, height: int, name: str, decoding: Decoding) -> None:
    if width * height > decoding.max_pixels:
        raise UsageError(
            f"image {name} has {width:,} x {height:,} pixels, more than data.max_pixels allows "
            f"({decoding.max_pixels:,}); where it is wanted: --set data.max_pixels={width * height}"
        )
