"""One architecture's readings and score."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import Meter
from tvt_ray.proxies import need_teacher
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.inputs import find_profile, limits_of, load_data, make_task
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.scores import Calibration, calibration_archs
from tvt_ray.storage.locations import Location
from tvt_ray.strict import parse_json
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.vits import Arch, Space


@dataclass(frozen=True)
class ScoredArch:
    """What `score --json` prints."""

    arch_id: str
    score: float
    params: int
    flops: int
    components: Mapping[str, float]  # the readings, by name


def score_one(config: RunConfig, arch_file: Path, run_dir: Location | None) -> ScoredArch:
    """On the scale of a run's calibration or of one made now, without Ray.

    Raises UsageError, also where the run's images are others, and RunError.
    """
    arch = read_arch(arch_file, config.space)
    stored = RunFolder(run_dir) if run_dir else None
    with process_as_it_was():
        data = load_data(config)
        if stored:
            stored.check_data(DataIdentity.of(data, config.probe))
        teacher = None
        if need_teacher(config.score.to_read):
            teacher = get_teacher(config.teacher, config.teacher_training, data, run_dir)[0]
        torch.set_num_threads(1)  # as in the search's workers, and so to the same last bit
        reader = Reader(make_task(config, data, teacher))
        row = reader.read(arch)
        if row.status != "ok":
            raise RunError(f"{row.arch_id} could not be scored: {row.error}")
        if stored and stored.calibration_file.exists():
            calibration = stored.calibration()
        else:
            limits = limits_of(config, data.num_classes, find_profile(config, stored))
            sample = calibration_archs(limits, config.seed, config.score.calibration_samples)
            calibration = _calibrate(reader, sample)
    score = calibration.score(config.score.zero_cost, row)
    assert score is not None  # failed rows do not get this far
    return ScoredArch(row.arch_id, score, row.params, row.flops, dict(row.readings))


def _calibrate(reader: Reader, archs: Sequence[Arch]) -> Calibration:
    """On this machine's cores, a thread each: torch computes outside the interpreter lock."""
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Meter("calibrating", len(archs), "architectures") as meter:
        for row in pool.map(reader.read, archs):
            rows.append(row)
            meter.advance(1)
    return Calibration.from_rows(rows)


def read_arch(path: Path, space: Space) -> Arch:
    """An architecture file: the JSON itself, or under the key `arch` beside `space`. Raises UsageError."""
    if not path.is_file():
        raise UsageError(f"there is no architecture file {path}")
    try:
        entry = parse_json(path.read_text())
        if isinstance(entry, dict) and isinstance(entry.get("arch"), dict):
            entry = {**entry["arch"], **({"space": entry["space"]} if "space" in entry else {})}
        return space.from_json(entry)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from None
