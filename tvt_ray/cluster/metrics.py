"""What a run tells Ray's metrics, and so any Prometheus that reads the nodes (docs/dashboard.md).

Ray exports them under `ray_` at each node's metrics port every 10 s, for as long as the process that records lives.
Recording is safe without a cluster: it then goes nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from tvt_ray.scoring.rows import Row

# From a GPU's millisecond to a minute; quantiles are interpolated between neighbours.
SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0]

ARCHS_SCORED = Counter("tvt_archs_scored", "Architectures scored, the calibration sample apart.")
ARCHS_FAILED = Counter("tvt_archs_failed", "Architectures that became failed rows.")
SCORE_SECONDS = Histogram("tvt_score_seconds", "Seconds that a worker took to score one architecture.", SECONDS)
BEST_SCORE = Gauge("tvt_best_score", "Best score of the run so far, in the unit of its --score.")
DRIVER_LAG_SECONDS = Histogram(
    "tvt_driver_lag_seconds",
    "Seconds from a worker's end of a batch to its rows being handed on for writing and the searcher told.",
    SECONDS,
)
IMAGES_PER_S = Gauge("tvt_images_per_second", "Training images per second, all workers of a student.", ("arch_id",))
VAL_ACC = Gauge("tvt_val_accuracy_percent", "Top-1 validation accuracy after an epoch, percent.", ("arch_id",))


def record_rows(rows: Sequence[Row], best: float | None) -> None:
    """Rows that were handed on for writing, and the run's best score so far, None before there is one."""
    scored = [row for row in rows if row.status == "ok"]
    for row in scored:
        SCORE_SECONDS.observe(row.seconds)
    if scored:
        ARCHS_SCORED.inc(len(scored))
    if len(scored) < len(rows):
        ARCHS_FAILED.inc(len(rows) - len(scored))
    BEST_SCORE.set(best)


def record_lag(ended: float | None) -> None:
    """The driver's lag for one batch, called when its rows are with the row writer and the searcher has been told.

    Lag is the time from `ended` (time.time() on the worker when the last architecture of the batch was scored; None for
    a batch that was lost) to now: the result's way to the driver, its wait for Tune's loop, and the driver's own work.
    On several machines their clocks' difference is part of it; a negative one counts as 0.
    """
    if ended is not None:
        DRIVER_LAG_SECONDS.observe(max(0.0, time.time() - ended))


def record_epoch(arch_id: str, epoch: Mapping[str, float]) -> None:
    """An epoch of a student: its `images_per_s` and, unless it learned from all images, `val_acc` (percent)."""
    IMAGES_PER_S.set(epoch["images_per_s"], {"arch_id": arch_id})
    if "val_acc" in epoch:
        VAL_ACC.set(epoch["val_acc"], {"arch_id": arch_id})
