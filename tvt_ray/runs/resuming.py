"""The command that goes on with what was cut short.

This imports nothing that takes time: an interrupt may come while other modules are half imported, and asks for it.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tvt_ray.storage.locations import Location

_called: list[Callable[[], str]] = []  # what the command line that runs goes on by


@contextlib.contextmanager
def resumed_by(command: Callable[[], str]) -> Iterator[None]:
    """In the block `command` gives what goes on with all that was called, of which a verb is only a part."""
    _called.append(command)
    try:
        yield
    finally:
        _called.pop()


def resume_command(
    run_dir: Location,
    call: str,
    which: str = "",
    plugins: Sequence[str] = (),
    ray_address: str | None = None,
) -> str:
    """What goes on with what a call began in a run folder: the command line that runs, or else, from Python, `call`.

    `which`: flags that say which part of the run it is of. Whoever goes on with a run that was made with plugins names
    them again, and an address that was given.
    """
    if _called:
        return _called[-1]()
    named = f" --set plugins=[{','.join(plugins)}]" if plugins else ""
    named += f" --ray-address {shlex.quote(ray_address)}" if ray_address else ""
    return f"{call} --run-dir {shlex.quote(str(run_dir))}{which} --resume{named}"


def distill_command(
    run_dir: Location,
    top: int | None = None,
    arch_id: str | None = None,
    arch_file: Path | None = None,
    beside: str = "",
    plugins: Sequence[str] = (),
    ray_address: str | None = None,
) -> str:
    """What goes on with unfinished trainings. `beside`: flags that say what else is trained."""
    which = f"--arch-id {arch_id}" if arch_id else f"--top-k {top or 1}"
    which = f"--arch {shlex.quote(str(arch_file))}" if arch_file else which
    return resume_command(run_dir, "python distill.py", f" {which}{beside}", plugins, ray_address)
