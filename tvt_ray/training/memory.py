"""How this process gets memory for what training makes and forgets at every step."""

from __future__ import annotations

import ctypes
import functools
import platform

# glibc's names for them, and what is set (malloc.h; mallopt(3))
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEPT, AHEAD, MAPPED = 2**29, 2**26, 2**30  # bytes


@functools.cache
def keep_freed_memory() -> bool:
    """Large tensors get memory that earlier ones had, instead of pages that the system has to clear each time.

    glibc maps what is above some megabytes anew and unmaps it when it is freed; a training step on a CPU asks for
    the same sizes again and again, and spent a fifth of its time so (`python -m benchmarks trunk`). Once a process;
    False where the C library has no such setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, value) for name, value in _SETTINGS)


def release_freed_memory() -> None:
    """Gives the system back what trainings have left free, when they are over and other work, or none, follows."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


_SETTINGS = ((M_MMAP_THRESHOLD, MAPPED), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, AHEAD))
