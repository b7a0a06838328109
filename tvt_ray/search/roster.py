"""Which scoring actors are at work, and when they wait for others: so that a run uses whatever joins its cluster.

Tune lets an actor that finishes a short trial take over the one that a starting actor was meant for, and drops the
latter: a run would stay on the first process that started, and use neither a node that joins nor the replacement of a
worker that died. So actors hold their next trial back while the cluster has room for more of them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from ray.experimental import internal_kv

from tvt_ray.cluster import alive_nodes
from tvt_ray.search.slots import Slots

HOLD_TIMEOUT_S = 60.0  # how long actors at most wait for one that starts
PATIENCE_S = 4 * HOLD_TIMEOUT_S  # between holds that nobody came in, at first
LOOK_INTERVAL_S = 3.0
POLL_INTERVAL_S = 0.25  # each of the actors that wait asks the cluster as often
NAMESPACE = "tvt_ray"


@dataclass(frozen=True)
class Attendance:
    """The actors of a run that have been given a trial, and which: those that were only set up can still be dropped.

    In the cluster's own key-value store: an actor that kept it could be killed like any other.
    """

    run: str
    slots: Slots

    @property
    def _prefix(self) -> str:
        return f"{self.run}/"

    def enter(self, worker: str, trial_id: str) -> None:
        """`worker`: "node/pid". It has begun this trial."""
        internal_kv._internal_kv_put(self._prefix + worker, trial_id.encode(), namespace=NAMESPACE)

    def leave(self, trial_id: str) -> None:
        """Whoever had begun this trial has died."""
        for key in internal_kv._internal_kv_list(self._prefix, namespace=NAMESPACE):
            if internal_kv._internal_kv_get(key, namespace=NAMESPACE) == trial_id.encode():
                internal_kv._internal_kv_del(key, namespace=NAMESPACE)

    def count(self) -> int:
        """Of those on nodes that are alive."""
        nodes = _node_ids()
        keys = internal_kv._internal_kv_list(self._prefix, namespace=NAMESPACE)
        return sum(key.decode().removeprefix(self._prefix).partition("/")[0] in nodes for key in keys)

    def wait(self, at_most: float = math.inf) -> float:
        """Until as many are there as the cluster holds by then, or `at_most`, or HOLD_TIMEOUT_S; gives the seconds."""
        start = time.monotonic()
        while self.count() < min(self.slots.available(), at_most) and time.monotonic() - start < HOLD_TIMEOUT_S:
            time.sleep(POLL_INTERVAL_S)
        return time.monotonic() - start

    def clear(self) -> None:
        internal_kv._internal_kv_del(self._prefix, del_by_prefix=True, namespace=NAMESPACE)


def _node_ids() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in alive_nodes())


class Roster:
    """Says when actors wait: each waits once for every new number of `hold()`, the first before its first trial."""

    def __init__(self, attendance: Attendance) -> None:
        self.attendance, self.slots = attendance, attendance.slots
        self.room = self.slots.count  # how many actors the cluster holds, as last looked
        self._hold, self._nodes = 1, _node_ids()
        self._next_look, self._next_hold, self._patience = math.inf, 0.0, PATIENCE_S

    def begin(self) -> None:
        """The first results are there, and so all actors that started with the run."""
        if self._next_look == math.inf:
            self._next_look = time.monotonic()

    def note_death(self, trial_id: str) -> None:
        """The worker that had begun this trial has died: another will take its place."""
        self.attendance.leave(trial_id)
        self._next_hold = 0.0

    def hold(self, many_left: bool) -> int:
        """Looks now and then whether the cluster has room for more actors than are there; not when few trials are left.

        Room that nobody came to fill (another run has it) is held for less and less, unless the nodes change.
        """
        now = time.monotonic()
        if now < self._next_look or not many_left:
            return self._hold
        self._next_look = now + LOOK_INTERVAL_S
        nodes, before, self.room = _node_ids(), self._nodes, self.slots.available()
        self._nodes = nodes
        if self.attendance.count() >= self.room:
            self._next_hold, self._patience = 0.0, PATIENCE_S
        elif nodes != before or now >= self._next_hold:
            self._hold += 1
            self._next_hold, self._patience = now + self._patience, 2 * self._patience
        return self._hold
