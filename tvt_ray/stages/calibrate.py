"""The sample that fixes the scale of a run's scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import Meter
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.latency import find_profile, limits_of
from tvt_ray.scoring.calibration import Calibration, calibration_rng
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.rows import Row
from tvt_ray.spaces import Arch
from tvt_ray.spaces.limits import Limits

MAX_DRAWS = 1000  # for each architecture of the sample


def calibration_archs(config: RunConfig, num_classes: int, limits: Limits | None = None) -> list[Arch]:
    """Drawn from the space within the limits (None: of the config's budget), by the run's seed alone.

    Raises UsageError where none is found.
    """
    limits = limits or limits_of(config, num_classes, find_profile(config))
    rng, space = calibration_rng(config.seed), config.space
    archs: dict[str, Arch] = {}
    for _ in range(MAX_DRAWS * config.score.calibration_samples):
        arch = space.sample(rng)
        if limits.admit(arch):
            archs[space.arch_id(arch)] = arch
        if len(archs) == config.score.calibration_samples:
            break
    if not archs:
        raise UsageError(_nothing_found(config, num_classes))
    return list(archs.values())


def _nothing_found(config: RunConfig, num_classes: int) -> str:
    small, large = config.space.smallest(num_classes), config.space.largest(num_classes)
    return (
        f"no architecture was found within the budget ({config.budget}): in this space parameters go from "
        f"{small.params:,} to {large.params:,} and FLOPs from {small.flops:,} to {large.flops:,}"
    )


def keep_calibration(folder: RunFolder, rows: Sequence[Row]) -> Calibration:
    """From the sample's rows, and stored. Raises RunError when none of them could be read."""
    calibration = Calibration.from_rows(rows)
    if not calibration.sample:
        raise RunError(f"none of the {len(rows)} calibration architectures could be read; the first: {rows[0].error}")
    calibration.save(folder.calibration_file)
    return calibration


def calibrate_here(reader: Reader, archs: Sequence[Arch]) -> Calibration:
    """On this machine's cores, a thread each: torch computes outside the interpreter lock."""
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Meter("calibrating", len(archs), "architectures") as meter:
        for row in pool.map(reader.read, archs):
            rows.append(row)
            meter.advance(1)
    return Calibration.from_rows(rows)
