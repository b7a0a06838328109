"""What trainings tell the driver, and what they go on from, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tvt_ray.progress import Meter
from tvt_ray.storage.locations import Location, write_atomically

STATE_FILE = "checkpoint.pt"
POLL_SECONDS = 0.5
Metrics = dict[str, float]  # an epoch's, as a cohort gives them


@ray.remote(num_cpus=0)
class TrainingBoard:
    """Runs beside the driver, so that no disk need be shared: takes what workers report, keeps what they go on from."""

    def __init__(self, folder: Location) -> None:
        self.folder, self.entries = folder, list[tuple[str, Metrics]]()

    def post(self, metrics: Mapping[str, Metrics]) -> None:
        """Takes an epoch's metrics of some students, by name."""
        self.entries += metrics.items()

    def take(self) -> list[tuple[str, Metrics]]:
        """What was posted since it was last taken."""
        entries, self.entries = self.entries, []
        return entries

    def keep(self, states: Mapping[str, bytes]) -> None:
        """Students' states. Raises RunError where they cannot be written."""
        for name, state in states.items():
            write_atomically(self.folder / name / STATE_FILE, state)

    def states(self, names: Sequence[str]) -> dict[str, bytes]:
        """The kept states of these students; one that has none is left out."""
        files = {name: self.folder / name / STATE_FILE for name in names}
        return {name: file.read_bytes() for name, file in files.items() if file.exists()}


def start_board(folder: Location) -> Any:
    """A board on the driver's node, which is not a spot machine; it keeps states below the folder."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return TrainingBoard.options(scheduling_strategy=here).remote(folder)  # type: ignore[attr-defined]


def show_epochs(board: Any, meter: Meter, on_epoch: Callable[[str, Metrics], None], go_on: Callable[[], bool]) -> None:
    """Shows epochs as they end, until `go_on` says that none is to come. It is called again and again, and waits."""
    while True:
        more = go_on()
        for name, metrics in ray.get(board.take.remote()):
            on_epoch(name, metrics)
            val = f", val {metrics['val_acc']:.1f} %" if "val_acc" in metrics else ""
            done = f"epoch {metrics['epoch']:.0f}{val}"
            meter.advance(1, f"{name.rpartition('/')[2]} {done}, {metrics['images_per_s']:,.0f} images/s")
        if not more:
            return


def root_cause(error: BaseException) -> str:
    """The last line of the deepest message: Ray wraps a worker's exception in several of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
