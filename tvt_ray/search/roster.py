"""Which scoring actors are at work, and when they wait for others: so that a run uses whatever joins its cluster."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass

from ray.experimental import internal_kv

from tvt_ray.search.slots import Slots

HOLD_TIMEOUT_S = 60.0  # how long actors at most wait for one that starts
LOOK_INTERVAL_S = 3.0


@dataclass(frozen=True)
class Arrivals:
    """How many actors of a run have been given a trial, so that others can hold theirs back until enough have.

    Otherwise an actor that finishes a short trial takes over the one that a starting actor was meant for, and Tune
    drops that actor: a run would stay on the first process that started, and use neither a node that joins nor the
    replacement of a worker that died. An actor that has been set up has not arrived: it can still be dropped. The count
    is in the cluster's own key-value store: an actor that kept it could be killed like any other.
    """

    run: str

    @property
    def _prefix(self) -> str:
        return f"tvt_ray/{self.run}/"

    def announce(self) -> None:
        internal_kv._internal_kv_put(self._prefix + uuid.uuid4().hex, b"", namespace="tvt_ray")

    def count(self) -> int:
        return len(internal_kv._internal_kv_list(self._prefix, namespace="tvt_ray"))

    def wait_for(self, wanted: int) -> float:
        """Until `wanted` have arrived, or HOLD_TIMEOUT_S; gives the seconds that it took."""
        start = time.monotonic()
        while self.count() < wanted and time.monotonic() - start < HOLD_TIMEOUT_S:
            time.sleep(0.05)
        return time.monotonic() - start

    def clear(self) -> None:
        internal_kv._internal_kv_del(self._prefix, del_by_prefix=True, namespace="tvt_ray")


class Roster:
    """Knows which actors are at work, and so how many have to have arrived before the next trial is scored."""

    def __init__(self, arrived: Arrivals, slots: Slots, expected: int) -> None:
        self.arrived, self.slots, self.expected = arrived, slots, expected
        self.room = slots.count  # how many actors the cluster holds, as last looked
        self._last: dict[str, tuple[float, float]] = {}  # worker -> when its last trial ended and how long it took
        self._nodes = slots.nodes()
        self._next_look, self._next_hold, self._patience = math.inf, 0.0, 4 * HOLD_TIMEOUT_S

    def note(self, worker: str, seconds: float, waited: float) -> None:
        """A trial of this worker has ended, which it scored in `seconds` after it had `waited` for others."""
        now = time.monotonic()
        held = waited > LOOK_INTERVAL_S or not self._last  # then all were, and their results are still to come
        self._last[worker] = now, seconds
        if held:
            self._next_look = now + self._silent_after()

    def _silent_after(self) -> float:
        """Seconds without a result after which an actor is taken for gone."""
        return 2 * max(seconds for _, seconds in self._last.values()) + LOOK_INTERVAL_S

    def arrivals(self) -> int:
        """Looks now and then whether the cluster has room for more actors than are at work, and then expects them.

        Room that nobody came to fill (another run has it) is looked at less and less, unless the nodes change.
        """
        now = time.monotonic()
        if now < self._next_look:
            return self.expected
        self._next_look = now + LOOK_INTERVAL_S
        nodes, before, arrived = self.slots.nodes(), self._nodes, self.arrived.count()
        self._nodes = nodes
        if arrived >= self.expected:  # whoever was waited for the last time came
            self._next_hold, self._patience = 0.0, 4 * HOLD_TIMEOUT_S
        silent_after = self._silent_after()
        at_work = sum(now - ended < silent_after for ended, _ in self._last.values())
        self.room = self.slots.available()
        if self.room > at_work and (nodes != before or now >= self._next_hold):
            self.expected = arrived + self.room - at_work
            self._next_hold, self._patience = now + self._patience, 2 * self._patience
        return self.expected
