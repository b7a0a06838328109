"""Images that somebody gives one by one: paths, patterns, folders, addresses, standard input; arrays and tensors."""

from __future__ import annotations

import glob
import io
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.layout import how_to_read, how_to_unpack, is_image, not_there, unread, walk
from tvt_ray.data.pixels import Decoding, bounded, decode, to_rgb
from tvt_ray.data.tensors import as_image
from tvt_ray.errors import RunError, UsageError
from tvt_ray.storage.locations import RemotePath, as_given, as_location, check_no_password, first_line, shown

STANDARD_INPUT = "-"
WEB = ("http://", "https://")
ANSWER_S = 15.0  # within which an address answers, and between two parts of what it sends
MOST_BYTES = 2**28  # of an image from an address or from standard input
PATTERN = "*?["  # characters of which a pattern has one


@dataclass(frozen=True)
class Wanted:
    """An image to be named."""

    name: str  # as it was given; of one in a folder, with the folder's
    # where its bytes are, or what reads them; a PIL image as it is
    content: Path | bytes | Image.Image | Callable[[], bytes]
    must_be_read: bool = True  # one that was named itself: in a folder, what cannot be read is passed over and told of

    def decoded(self, decoding: Decoding) -> Image.Image:
        """An RGB image, by the rules of data/pixels.py. Raises UsageError that names it."""
        if isinstance(self.content, Image.Image):
            return bounded(to_rgb(self.content, decoding.background))
        if isinstance(self.content, Path | bytes):
            return decode(self.content, self.name, decoding)
        try:
            return decode(self.content(), self.name, decoding)
        except (RunError, FileNotFoundError) as error:
            raise UsageError(str(error)) from None


def images_at(places: Iterable[str | Path]) -> tuple[list[Wanted], list[str]]:
    """(images, notes of what was passed over) of what is named, in that order; nothing of them is decoded.

    - A file, or a folder of any depth: its images by name.
    - A pattern (*, ?, [ ], ** for any depth), where no file is called so: files and folders that match, by name.
    - `-`: one image from standard input.
    - http:// and https://: one image, had when it is its turn; s3://, gs:// …: a file or a folder.

    Raises UsageError for what is not there, a folder or a pattern without images, and archives.
    """
    wanted: list[Wanted] = []
    notes: list[str] = []
    for place in places:
        text = str(place)
        if text == STANDARD_INPUT:
            wanted.append(Wanted(text, _from_standard_input()))
        elif text.lower().startswith(WEB):
            check_no_password(text)
            wanted.append(Wanted(shown(text), _Address(text)))
        elif "://" in text:
            wanted += _elsewhere(text)
        else:
            found, said = _here(text)
            wanted += found
            notes += said
    return wanted, notes


def as_images(given: Any) -> Iterator[Wanted]:
    """What Python code gives: one of these, or several in a list, tuple or iterator; an empty list has none.

    - A PIL image of any size and mode.
    - The path of a file, as a text or a Path; an address; bytes of an encoded image.
    - An array or tensor (H, W), (H, W, C) or (C, H, W) of 1, 3 or 4 channels; (N, …) of four axes are N images. Whole
      numbers from 0 to 255, floats from 0 to 1, or truth values.

    Raises UsageError for anything else.
    """
    if isinstance(given, Image.Image):
        yield Wanted("a PIL image", given)
    elif isinstance(given, bytes | bytearray | memoryview):
        yield Wanted("of bytes", bytes(given))
    elif isinstance(given, str | Path):
        (first, *more), _ = images_at([given])
        if more or not first.must_be_read:
            raise UsageError(f"{shown(given)} has several images: give files, in the order of the answers")
        yield first
    elif hasattr(given, "__array__"):
        pixels = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        for one in pixels if pixels.ndim == 4 else [pixels]:
            try:
                yield Wanted("an array", as_image(_whole_numbers(one)))
            except ValueError as error:
                raise UsageError(str(error)) from None
    elif isinstance(given, Iterable) and not isinstance(given, dict):
        for each in given:
            yield from as_images(each)
    else:
        raise UsageError(
            "an image is a PIL image, the path of a file, bytes, or an array of pixels, alone or in a list; got "
            f"{type(given).__name__}"
        )


def _whole_numbers(pixels: NDArray[Any]) -> NDArray[Any]:
    """Floats from 0 to 1 and truth values as 0 to 255; whole numbers stay. Raises ValueError."""
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind != "f":
        return pixels
    if not np.isfinite(pixels).all() or pixels.min(initial=0) < 0 or pixels.max(initial=0) > 1:
        raise ValueError(
            f"floats of an image are from 0 to 1; got {pixels.min():.4g} to {pixels.max():.4g} (0 to 255 are given as "
            "uint8; what `transform` made goes to the student itself, as a batch)"
        )
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)


def _here(text: str) -> tuple[list[Wanted], list[str]]:
    """Of a path or a pattern on this machine."""
    try:
        path = as_given(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    here = path.expanduser()
    if here.is_dir():
        return _in_folder(here, path)
    if here.exists() or here.is_symlink():
        if not is_image(here) and (packed := how_to_unpack([here])):
            raise UsageError(f"{shown(path)} is no image{packed}")
        return [Wanted(shown(path), here)], []
    if any(char in text for char in PATTERN):
        return _matching(text)
    raise not_there(here, path)


def _in_folder(here: Path, path: Path) -> tuple[list[Wanted], list[str]]:
    found = walk(here)
    lost = unread(found.others)
    if not found.images:
        hint = how_to_unpack(found.others) or how_to_read(lost)
        raise UsageError(f"{shown(path)} holds no images{hint}")
    notes = [f"{shown(path)}: left out{how_to_read(lost)}"] if lost else []
    return [Wanted(shown(path / image.relative_to(here)), image, False) for image in found.images], notes


def _matching(text: str) -> tuple[list[Wanted], list[str]]:
    paths = sorted(Path(found) for found in glob.glob(str(Path(text).expanduser()), recursive=True))
    wanted: list[Wanted] = []
    notes: list[str] = []
    for path in paths:
        if path.is_file() and is_image(path):
            wanted.append(Wanted(shown(path), path, False))
        elif path.is_dir() and "**" not in text and walk(path).images:
            found, said = _in_folder(path, path)
            wanted += found
            notes += said
    if not wanted:
        what = "none of them an image" if paths else "nothing"
        raise UsageError(f"the pattern {shown(text)} matches {f'{len(paths):,} names, ' if paths else ''}{what}")
    return wanted, notes


def _elsewhere(text: str) -> list[Wanted]:
    location = as_location(text)
    if not isinstance(location, RemotePath):
        return _here(str(location))[0]
    if location.is_file():
        return [Wanted(shown(text), location.read_bytes)]
    images = [file for file in location.files() if is_image(Path(file.name))]
    found = [Wanted(shown(file), file.read_bytes, False) for file in images]
    if not found:
        raise UsageError(f"{shown(text)} holds no images, or is not there")
    return found


def _from_standard_input() -> bytes:
    if sys.stdin.isatty():
        raise UsageError("- is an image from standard input, which is a terminal: tvt predict STUDENT - < photo.jpg")
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if not data or len(data) > MOST_BYTES:
        raise UsageError(f"standard input holds {'nothing' if not data else 'more than 256 MiB'}; - is one image")
    return data


@dataclass(frozen=True)
class _Address:
    """What an address on the web gives."""

    url: str

    def __call__(self) -> bytes:
        """Raises UsageError where nothing answers in time, or more comes than an image has."""
        try:
            with urllib.request.urlopen(self.url, timeout=ANSWER_S) as answer:  # it goes on to http and https alone
                sink = io.BytesIO()
                while len(sink.getbuffer()) <= MOST_BYTES and (part := answer.read(2**20)):
                    sink.write(part)
        except urllib.error.HTTPError as error:
            raise UsageError(f"{shown(self.url)} cannot be read: {error.code} {shown(error.reason)}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            said = first_line(reason) if isinstance(reason, BaseException) else str(reason)
            raise UsageError(f"{shown(self.url)} cannot be read: {said}") from None
        if len(sink.getbuffer()) > MOST_BYTES:
            raise UsageError(f"{shown(self.url)} sends more than 256 MiB, which no image has")
        return sink.getvalue()
