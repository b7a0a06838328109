"""One pass over images, by all cores: what each is like, its pixels made smaller, and that it is whole."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvt_ray.data.images import EncodedImages, ImageSource
from tvt_ray.data.pixels import to_rgb

IN_FLIGHT_PIXELS = 64_000_000  # decoded at a time, by all threads: a few hundred MB, more with an alpha channel
LOOK_AHEAD = 4  # images per thread that are begun before what those in front of them give is taken
SPAN_SIZE = 256  # pixels: photographs' values are looked at at this size or a little above

J = TypeVar("J")
T = TypeVar("T")


class Size(NamedTuple):
    """Of an image, in pixels."""

    width: int
    height: int


class ImageFacts(NamedTuple):
    """What an image is like."""

    size: Size  # upright, where it was decoded
    mode: str  # PIL's, before it became RGB
    span: int | None  # largest minus least value of a channel after it did; 0: all pixels are alike; None: not asked


class Seen(NamedTuple):
    """What a look at an image gives."""

    facts: ImageFacts
    pixels: NDArray[np.uint8] | None = None  # (height, width, 3); None: not asked, or in memory already


def look_at(
    source: ImageSource, order: Iterable[int], *, span: bool = False, side: int | None = None
) -> Iterator[Seen]:
    """The images at `order`, in that order. Headers alone are read where nothing more is asked.

    `span`: also of values, for which images are decoded. `side`: also pixels, the shorter side at most so many of
    them. Any of both finds an image that is not whole, at whatever scale: raises UsageError that names the first.
    """
    return in_order(functools.partial(_look, PixelBudget(), source, span, side), order)


def _look(budget: PixelBudget, source: ImageSource, span: bool, side: int | None, index: int) -> Seen:
    if not isinstance(source, EncodedImages):
        image = source[index]
        return Seen(ImageFacts(Size(*image.size), image.mode, _span(image)))
    with source.opened(index) as image, budget.taking(image.width * image.height):
        size, mode = Size(*image.size), image.mode
        draft_size = SPAN_SIZE if span else side
        if draft_size is None:
            return Seen(ImageFacts(size, mode, None))
        drafted = image.draft(mode, (draft_size, draft_size))  # JPEG decodes at 1/2, 1/4 or 1/8
        rgb = to_rgb(image, source.decoding.background)
        turned = rgb.size != image.size  # by its EXIF data
        facts = ImageFacts(Size(*reversed(size)) if turned else size, mode, _span(rgb) if span else None)
        if side is None:
            return Seen(facts)
        if span:  # values and pixels are looked at at scales of their own, which are often the same
            with source.opened(index) as again:
                if again.draft(mode, (side, side)) != drafted:
                    rgb = to_rgb(again, source.decoding.background)
        return Seen(facts, np.asarray(shrunk(rgb, side)))


def _span(image: Image.Image) -> int:
    return max(high - low for low, high in image.getextrema())  # type: ignore[misc, union-attr]


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side `side` pixels, low-pass filtered; as it is where that is no less."""
    shorter = min(image.size)
    if shorter <= side:
        return image
    size = [max(side, round(side * length / shorter)) for length in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=3.0)


def in_order(work: Callable[[J], T], jobs: Iterable[J]) -> Iterator[T]:
    """What `work` gives for each job, in order, by a thread per core; few jobs are begun ahead of what is given.

    PIL decodes outside the interpreter lock, so threads use all cores. The first exception ends it.
    """
    threads, jobs = os.cpu_count() or 1, iter(jobs)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(work, job) for job in itertools.islice(jobs, threads * LOOK_AHEAD))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, job) for job in itertools.islice(jobs, 1))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class PixelBudget:
    """Bounds how many pixels are decoded at a time, however many threads there are.

    An image that has more than all waits until it is alone.
    """

    def __init__(self, num_pixels: int = IN_FLIGHT_PIXELS) -> None:
        self._total = self._free = num_pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, num_pixels: int) -> Iterator[None]:
        """Waits until there is room for them; they are given back at the block's end."""
        share = min(num_pixels, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()
