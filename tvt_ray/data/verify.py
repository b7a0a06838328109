"""Decodes every image once, so that a broken one stops a run before its work and not hours into it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tvt_ray.data.images import ArrayImages, EncodedSource
from tvt_ray.data.pixels import to_rgb
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.progress import Meter
from tvt_ray.storage.locations import cache_folder

CHUNK = 16
IN_FLIGHT_PIXELS = 64_000_000  # decoded at a time, by all threads: a few hundred MB, more with an alpha channel
LOOK_AHEAD = 4  # jobs per thread that are begun before what those in front of them give is taken
DRAFT = 8  # JPEG is decoded at this fraction of its size: a file that ends too early shows at any scale

J = TypeVar("J")
T = TypeVar("T")


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


def verify_images(data: Dataset) -> None:
    """Raises UsageError that names the first corrupt image. What was found whole is remembered until it changes."""
    splits = [split for split in data.splits.values() if not isinstance(split.source, ArrayImages)]
    if not splits:
        return
    if _marker(data).exists():
        return
    look_at_all(splits, functools.partial(_decode, PixelBudget()), "checking images")
    remember_verified(data)


def look_at_all(splits: Sequence[Split], look: Callable[[Split, int], T], title: str) -> list[list[T]]:
    """What `look` gives for each image of each split, in order, by all cores; it is given split and place.

    The first exception ends it.
    """
    jobs = [(split, start) for split in splits for start in range(0, len(split), CHUNK)]

    def look_at_chunk(job: tuple[Split, int]) -> list[T]:
        split, start = job
        return [look(split, index) for index in range(start, min(start + CHUNK, len(split)))]

    found: list[T] = []
    with Meter(title, sum(map(len, splits)), "images") as meter:
        for part in in_order(look_at_chunk, jobs):
            found += part
            meter.advance(len(part))
    taken = iter(found)
    return [[next(taken) for _ in range(len(split))] for split in splits]


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


def _decode(budget: PixelBudget, split: Split, index: int) -> None:
    if not isinstance(split.source, EncodedSource):
        _ = split[index]
        return
    with split.source.opened(int(split.indices[index])) as image, budget.taking(image.width * image.height):
        image.draft(image.mode, (max(1, image.width // DRAFT), max(1, image.height // DRAFT)))
        to_rgb(image, split.source.decoding.background)


def _marker(data: Dataset) -> Path:
    """Named by the images, and by how large they were allowed to be."""
    limits = {
        split.source.decoding.max_pixels for split in data.splits.values() if isinstance(split.source, EncodedSource)
    }
    return cache_folder() / "verified" / "-".join([data.fingerprint(), *map(str, sorted(limits))])


def remember_verified(data: Dataset) -> None:
    """All images were decoded. A cache that cannot be written costs a second look next time, and nothing else."""
    marker = _marker(data)
    with contextlib.suppress(OSError):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
