"""Decodes every image once, so that a broken one stops a run before its work and not hours into it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tvt_ray.data.images import ArrayImages
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.progress import Meter
from tvt_ray.storage.locations import cache_folder

CHUNK = 64


def verify_images(data: Dataset) -> None:
    """Raises UsageError that names the first corrupt image. What was found whole is remembered until it changes."""
    splits = [split for split in (data.train, data.val, data.test) if not isinstance(split.source, ArrayImages)]
    if not splits:
        return
    marker = cache_folder() / "verified" / data.fingerprint()
    if marker.exists():
        return
    jobs = [(split, start) for split in splits for start in range(0, len(split), CHUNK)]
    # PIL decodes outside the interpreter lock, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool, Meter("checking images", sum(map(len, splits)), "images") as meter:
        try:
            for count in pool.map(_decode_chunk, *zip(*jobs, strict=True)):
                meter.advance(count)
        except Exception:
            pool.shutdown(cancel_futures=True)
            raise
    _remember(marker)


def _decode_chunk(split: Split, start: int) -> int:
    stop = min(start + CHUNK, len(split))
    for index in range(start, stop):
        _ = split[index]
    return stop - start


def _remember(marker: Path) -> None:
    """A cache that cannot be written costs a second look next time, and nothing else."""
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:
        return
