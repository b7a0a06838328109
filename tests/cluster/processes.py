"""Processes of this machine, as /proc has them: proc(5) of Linux."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """`title`: its arguments, each ended by a zero byte, or what it calls itself, as Ray's workers do."""

    pid: int
    parent: int
    title: bytes


def processes() -> list[Process]:
    """Those that run now; one that ends meanwhile is left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            found.append(Process(int(entry.name), parent, (entry / "cmdline").read_bytes()))
        except (OSError, IndexError):
            continue
    return found


def workers_of(cluster: str, title: str) -> list[int]:
    """The actors of a cluster on this machine whose titles hold `title`, the newest last; others may run beside it."""
    running = processes()
    raylets = {each.pid for each in running if b"raylet" in each.title and f"={cluster}".encode() in each.title}
    return sorted(each.pid for each in running if title.encode() in each.title and each.parent in raylets)
