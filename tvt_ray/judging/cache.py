"""Readings that are kept between calls: a proxy reads each architecture once, until the proxy's file changes."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.rows import ROWS, Row
from tvt_ray.storage.locations import cache_folder, keep_if_possible
from tvt_ray.storage.records import Records


class ReadingCache:
    """Rows by proxy, under a folder that is named by all that readings depend on but the architecture."""

    def __init__(self, key: Mapping[str, Any], folder: Path | None = None) -> None:
        """`key`: JSON-able. `folder`: where caches are; None: $XDG_CACHE_HOME/tvt_ray/readings."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = (folder or cache_folder() / "readings") / digest

    def read(self, proxy: str) -> dict[str, Row]:
        """By architecture; failures are not kept, so they are tried again."""
        return {row.arch_id: row for row in self._parts(proxy).read() if row.status == "ok"}

    def add(self, proxy: str, rows: Sequence[Row]) -> None:
        """On return the rows are on disk, unless the cache cannot be written, which is said."""
        good = [row for row in rows if row.status == "ok"]
        keep_if_possible(lambda: self._parts(proxy).append(good), "the cache of readings")

    def compact(self, proxy: str) -> None:
        """Makes one part of many."""
        keep_if_possible(self._parts(proxy).compact, "the cache of readings")

    def _parts(self, proxy: str) -> Records[Row]:
        source = inspect.getsource(sys.modules[PROXIES[proxy].read.__module__])
        return Records(self.folder / f"{proxy}-{hashlib.sha256(source.encode()).hexdigest()[:8]}", ROWS)
