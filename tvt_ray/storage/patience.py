"""Questions to what may never answer: a network, an object store, a share whose server is gone."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tvt_ray.errors import RunError, UsageError
from tvt_ray.storage.locations import Location, RemotePath, first_line, what_is_closed

T = TypeVar("T")
ANSWER_S = 10.0  # within which whatever is outside answers, or is taken to be away


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` gives or raises; TimeoutError where it has done neither after `seconds`.

    It goes on in its thread: looking up a name, or a share that hangs, cannot be cut off.
    """
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(ask())
        except BaseException as error:
            raised.append(error)

    asking = threading.Thread(target=run, name="asking", daemon=True)
    asking.start()
    asking.join(seconds)
    if raised:
        raise raised[0]
    if not given:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return given[0]


def check_folder(folder: Location) -> None:
    """Raises UsageError, within 15 seconds, where nothing could be written to a folder later.

    Nothing is left behind, and a folder that is not there is not made.
    """
    problem = what_is_closed(folder) if isinstance(folder, Path) else _unwritable(folder)
    if problem:
        raise UsageError(f"{folder} cannot be written to: {problem}")


def _unwritable(folder: RemotePath) -> str | None:
    probe = folder / f".{uuid.uuid4().hex}.probe"

    def ask() -> None:
        probe.write_bytes(b"")
        probe.unlink()

    try:
        within(ANSWER_S, ask)
    except (RunError, OSError) as error:
        return first_line(error)
    return None


def check_room(folder: Location) -> None:
    """Raises UsageError where the disk of a run's folder is nearly full; an object store has room."""
    if not isinstance(folder, Path):
        return
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE:
        raise UsageError(
            f"{folder} has {free / 2**20:.0f} MiB free, and a run needs {LEAST_FREE / 2**20:.0f}: a teacher, students "
            "and what they go on from; free some, or choose another disk"
        )


LEAST_FREE = 2**27  # bytes: a teacher of 3.4M parameters with the state of its training, and five students with theirs
