"""What identifies an image: its content, whatever the file is called and wherever it lies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from tvt_ray.errors import RunError, UsageError
from tvt_ray.storage.locations import cache_folder, first_line, shown, write_atomically

# What was known of a file when it was hashed: size in bytes, modification time in nanoseconds, and the hash.
Known: TypeAlias = tuple[int, int, str]

# A file that was changed so recently may change again without another modification time: it is not remembered.
SETTLED_NS = 2_000_000_000


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """sha256 of each file's bytes. A file whose path, size and modification time are those of last time is not read.

    Raises UsageError that names a file which is not there or cannot be read.
    """
    if not paths:
        return []
    paths = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (Path.resolve would follow links)
    memory = cache_folder() / "hashes" / f"{bytes_hash(os.fsencode(os.path.commonpath(paths)))[:16]}.json"
    known = _recall(memory)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and hashing leave the interpreter's lock
        found = list(pool.map(lambda path: _look(path, known.get(str(path))), paths))
    settled = time.time_ns() - SETTLED_NS
    fresh = {str(path): entry for path, entry in zip(paths, found, strict=True) if entry[1] < settled}
    if any(known.get(path) != entry for path, entry in fresh.items()):
        _remember(memory, {**known, **fresh})
    return [digest for _, _, digest in found]


def bytes_hash(data: bytes) -> str:
    """sha256, as `file_hashes` gives it of a file that holds `data`."""
    return hashlib.sha256(data).hexdigest()


def combined_hash(parts: Iterable[str]) -> str:
    """Of texts in their order."""
    return bytes_hash(json.dumps(list(parts)).encode())


def _look(path: Path, known: Known | None) -> Known:
    try:
        stat = path.stat()
        if known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
            return known
        with path.open("rb") as file:
            return stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UsageError(f"image {shown(path)} is listed but not there") from None
    except OSError as error:
        raise UsageError(f"image {shown(path)} cannot be read: {first_line(error)}") from None


def _recall(memory: Path) -> dict[str, Known]:
    """Nothing where there is no such file, or one that is damaged."""
    try:
        entries = json.loads(memory.read_bytes())
        return {str(path): (int(size), int(mtime), str(digest)) for path, (size, mtime, digest) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(memory: Path, entries: Mapping[str, Known]) -> None:
    """A cache that cannot be written costs a second reading next time, and nothing else."""
    with contextlib.suppress(RunError):
        write_atomically(memory, json.dumps(entries).encode())
