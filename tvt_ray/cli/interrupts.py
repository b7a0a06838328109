"""Ctrl-C: the first ends in order, within seconds, with the command that goes on; the second ends at once.

Python's handlers run between two bytecodes of the main thread, and Ray and Tune put their own in their place. So a
thread reads each signal's number from a pipe that Python writes to whichever handler is set (`signal.set_wakeup_fd`),
and ends the process where nobody else has within GRACE_S.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

from tvt_ray.errors import FIRST_TO_END

INTERRUPTED = 130  # exit code: 128 and the number of SIGINT, as shells have it
SAME_S = 0.4  # a terminal tells all of a process group, and a forked child's signal comes through the same pipe
GRACE_S = 4.0  # for what ends in order: rows that have arrived are written, Ray is left


class Interrupts:
    """`with Interrupts(tell) as interrupts:` Ctrl-C raises KeyboardInterrupt in the block, and `asked` tells of it.

    `tell` is called, in a thread, before the process is ended since it has not ended by itself. SIGTERM raises the
    same; it is not timed. Outside of the main thread nothing is changed.
    """

    def __init__(self, tell: Callable[[], object]) -> None:
        self.asked, self._tell = False, tell
        self._active = threading.current_thread() is threading.main_thread()
        self._over = threading.Event()

    def __enter__(self) -> Interrupts:
        if self._active:
            self._read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._before = {number: signal.signal(number, self._raise) for number in (signal.SIGINT, signal.SIGTERM)}
            self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="interrupts", daemon=True).start()
            FIRST_TO_END.append(self._end_if_asked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._over.set()
            FIRST_TO_END.remove(self._end_if_asked)
            signal.set_wakeup_fd(self._before_fd)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            os.close(self._write)  # the thread reads the end, and closes the other side

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number == signal.SIGINT
        raise KeyboardInterrupt("SIGTERM" if number == signal.SIGTERM else "")

    def _watch(self) -> None:
        first: float | None = None
        while number := os.read(self._read, 1):
            if number[0] != signal.SIGINT:
                continue
            if first is None:
                self.asked, first = True, time.monotonic()
                threading.Thread(target=self._end_late, name="interrupted", daemon=True).start()
            elif time.monotonic() - first > SAME_S:
                os._exit(INTERRUPTED)
        os.close(self._read)

    def _end_late(self) -> None:
        if not self._over.wait(GRACE_S):
            self._end_if_asked()

    def _end_if_asked(self) -> None:
        if self.asked:
            self._tell()
            os._exit(INTERRUPTED)


def end_at_once() -> None:
    """Ctrl-C before anything has begun, while modules are imported: no traceback."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))


def leave(code: int) -> NoReturn:
    """Ends a process of the command line. Who was interrupted waits for no thread and no hook of a library.

    Of who was not, all is done and said, and a Ctrl-C from here on changes nothing: Python takes a second or more to
    end, during most of which it has put the signal's default back, which kills.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)
