"""What trainings tell the driver, and what they go on from, whatever runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ray

from tvt_ray.storage.locations import Location, write_atomically

STATE_FILE = "checkpoint.pt"
Metrics = dict[str, float]  # an epoch's, as a cohort gives them


@ray.remote(num_cpus=0)
class TrainingBoard:
    """Runs beside the driver, so that no disk need be shared: takes what workers report, keeps what they go on from."""

    def __init__(self, folder: Location) -> None:
        self.folder, self.entries = folder, list[tuple[str, Metrics]]()

    def post(self, metrics: Mapping[str, Metrics]) -> None:
        """An epoch of some students, by name."""
        self.entries += metrics.items()

    def take(self) -> list[tuple[str, Metrics]]:
        """What was posted since the last time."""
        entries, self.entries = self.entries, []
        return entries

    def keep(self, states: Mapping[str, bytes]) -> None:
        """Students' states. Raises RunError where they cannot be written."""
        for name, state in states.items():
            write_atomically(self.folder / name / STATE_FILE, state)

    def states(self, names: Sequence[str]) -> dict[str, bytes]:
        """Those that are kept."""
        files = {name: self.folder / name / STATE_FILE for name in names}
        return {name: file.read_bytes() for name, file in files.items() if file.exists()}
