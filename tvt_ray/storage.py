"""Files that appear whole or not at all, and the folder for those that can be made again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tvt_ray.errors import RunError


def write_atomically(path: Path, data: bytes) -> None:
    """A crash leaves the old file or the new one; folders are made. Raises RunError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunError(f"{path} cannot be written: {error.strerror}") from None


def cache_folder() -> Path:
    """What can be made again: $XDG_CACHE_HOME/tvt_ray, by default ~/.cache/tvt_ray."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvt_ray"
