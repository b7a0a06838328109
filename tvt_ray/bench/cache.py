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
from tvt_ray.search.rows import Row
from tvt_ray.search.store import RowStore
from tvt_ray.storage import cache_folder


class ReadingCache:
    """Rows by proxy, under a folder that is named by all that readings depend on but the architecture."""

    def __init__(self, key: Mapping[str, Any], folder: Path | None = None) -> None:
        """`key`: JSON-able. `folder`: where caches are; None: $XDG_CACHE_HOME/tvt_ray/readings."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = (folder or cache_folder() / "readings") / digest

    def read(self, proxy: str) -> dict[str, Row]:
        """By architecture; failures are not kept, so they are tried again."""
        return {row.arch_id: row for row in self._store(proxy).read() if row.status == "ok"}

    def add(self, proxy: str, rows: Sequence[Row]) -> None:
        """On return the rows are on disk."""
        self._store(proxy).append([row for row in rows if row.status == "ok"])

    def compact(self, proxy: str) -> None:
        self._store(proxy).compact()

    def _store(self, proxy: str) -> RowStore:
        source = inspect.getsource(sys.modules[PROXIES[proxy].__module__])
        return RowStore(self.folder / f"{proxy}-{hashlib.sha256(source.encode()).hexdigest()[:8]}")
