"""From files of trained accuracies to tables of rank correlations: what `tvt rank` runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tvt_ray.data.splits import Dataset
from tvt_ray.errors import RunError, UsageError
from tvt_ray.judging.agreement import noise_share
from tvt_ray.judging.tables import NO_LABELS, LabelRequest, Noise, RankedColumn, judge_labelled, tabulate
from tvt_ray.judging.truth import GroundTruth, LearnsFrom, Scored, read_ground_truth
from tvt_ray.progress import say
from tvt_ray.proxies import PROXIES, Probe, need_teacher
from tvt_ray.refining.features import feature_table
from tvt_ray.refining.halving import MIN_MEASURED
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import limits_of, load_data, make_task
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.scoring.reader import ReadingTask, make_row
from tvt_ray.scoring.rows import ARITHMETIC, ROWS, Row
from tvt_ray.scoring.scores import Calibration, calibration_archs, find_score, score_names
from tvt_ray.storage.locations import cache_folder, keep_if_possible
from tvt_ray.storage.records import Records
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.version import __version__
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Budget
from tvt_ray.vits.draws import SCHEME

# Scores architectures, telling of rows as they arrive
ScoreArchs: TypeAlias = Callable[[ReadingTask, Sequence[Arch], Callable[[Sequence[Row]], None]], list[Row]]


@dataclass(frozen=True)
class RankRequest:
    """What to compare with what."""

    files: tuple[Path, ...]
    proxies: tuple[str, ...]  # scores, proxies, or arithmetic
    columns: tuple[str, ...] | None = None  # None: all
    min_params: int | None = None
    max_params: int | None = None
    num_seeds: int = 1
    labels: LabelRequest = NO_LABELS


def check_request(request: RankRequest) -> None:
    """Raises UsageError for a proxy that does not exist, or a number of seeds, labels or draws that cannot be."""
    known = score_names()
    for name in request.proxies:
        if name not in known:
            raise UsageError(f"unknown proxy {name!r}; choices: {', '.join(known)}")
    if request.num_seeds < 1:
        raise UsageError(f"--seeds is at least 1; got {request.num_seeds}")
    if request.labels.num_labels != 0 and request.labels.num_labels < MIN_MEASURED:
        raise UsageError(f"--labels is 0, or at least {MIN_MEASURED}; got {request.labels.num_labels}")
    if request.labels.num_draws < 1:
        raise UsageError(f"--draws is at least 1; got {request.labels.num_draws}")


def score_ground_truth(config: RunConfig, request: RankRequest, ray_address: str | None = None) -> list[Scored]:
    """Scores every architecture of the files by every proxy and seed, on the cluster; what is cached is read."""
    check_request(request)
    data = load_data(config.with_(budget=Budget()))
    truths = [truth for path in request.files for truth in read_ground_truth(path, config.space, data.num_classes)]
    for truth in truths:
        _check_columns(truth, request.columns)
        truth.check_enough(request.min_params, request.max_params, request.labels.num_labels)
    needed = need_teacher(_needed(_names(config, request)))
    teacher = get_teacher(config.teacher, config.teacher_training, data)[0] if needed else None
    with contextlib.ExitStack() as cluster, process_as_it_was():

        def score(task: ReadingTask, archs: Sequence[Arch], keep: Callable[[Sequence[Row]], None]) -> list[Row]:
            from tvt_ray.cluster.connection import connected  # only where something is not in the cache
            from tvt_ray.cluster.slots import pack_job
            from tvt_ray.cluster.tasks import read_archs

            cluster.enter_context(connected(ray_address))
            title = f"{task.space.name} {', '.join(task.proxies)}"
            return read_archs(pack_job(config.cluster, task), archs, title, keep)

        return [_score_truth(config, truth, request, data, teacher, score) for truth in truths]


def _check_columns(truth: GroundTruth, wanted: Sequence[str] | None) -> None:
    unknown = [name for name in wanted or () if name not in truth.columns]
    if unknown:
        raise UsageError(f"the ground truth has no column {unknown[0]!r}; choices: {', '.join(truth.columns)}")


def _score_truth(
    config: RunConfig,
    truth: GroundTruth,
    request: RankRequest,
    data: Dataset,
    teacher: Teacher | None,
    score: ScoreArchs,
) -> Scored:
    """One repetition per seed: other weights, another probe, another calibration sample."""
    repeated: list[dict[str, list[float]]] = []
    learns_from: LearnsFrom | None = None
    names = _names(config, request)
    archs = [entry.arch for entry in truth.entries]
    for repetition in range(request.num_seeds):
        own = config.with_(
            space=truth.space,
            budget=Budget(),
            seed=config.seed + repetition,
            probe={"seed": config.probe.seed + repetition},
        )
        task = make_task(own, data, teacher)
        fused = [name for name in names if len(find_score(name).readings) > 1]
        limits = limits_of(own, data.num_classes, profile=None)
        sample = calibration_archs(limits, own.seed, own.score.calibration_samples) if fused else []
        calibration = Calibration.from_rows(list(read_or_score(task, sample, _needed(fused), score).values()))
        rows = read_or_score(task, archs, _needed(names), score)
        mine = [rows[entry.arch_id] for entry in truth.entries]
        if request.labels.num_labels and learns_from is None:
            prior = np.array([_score(config.score.name, row, calibration) for row in mine])
            learns_from = LearnsFrom(config.score.name, prior, feature_table(mine, truth.space))
        repeated.append({name: [_score(name, row, calibration) for row in mine] for name in request.proxies})
    scores = {name: np.array([values[name] for values in repeated]) for name in request.proxies}
    return Scored(truth, scores, learns_from)


def _names(config: RunConfig, request: RankRequest) -> list[str]:
    """The scores to read for: with labels, the one that the surrogate begins with is among them."""
    return list(dict.fromkeys([*request.proxies, *([config.score.name] if request.labels.num_labels else [])]))


def _needed(names: Sequence[str]) -> list[str]:
    """The proxies to run for some scores, each once."""
    return list(dict.fromkeys(r for name in names for r in find_score(name).readings if r not in ARITHMETIC))


def _score(name: str, row: Row, calibration: Calibration) -> float:
    score = calibration.score(name, row)
    assert score is not None  # failed rows do not get this far
    return score


def read_or_score(
    task: ReadingTask, archs: Sequence[Arch], proxies: Sequence[str], score: ScoreArchs
) -> dict[str, Row]:
    """Rows with the components of all `proxies`, by architecture; what was scored before is read from the cache.

    `score` scores what is missing, and calls what it is given with rows as they arrive, which are kept at once. Each
    proxy is scored on its own, so that one that fails takes no other's reading along. Raises RunError when an
    architecture cannot be scored by one.
    """
    space = task.space
    by_id = {space.arch_id(arch): arch for arch in archs}
    rows = {arch_id: make_row(task, arch, {}, None, 0.0) for arch_id, arch in by_id.items()}
    cache = ReadingCache(
        {
            "version": __version__,
            "draws": SCHEME,
            "num_inits": task.num_inits,
            "precision": str(task.probe.precision),
            "space": space.model_dump(mode="json"),
            "num_classes": task.num_classes,
            "seed": task.seed,
            "probe": _fingerprint(task.probe),
        }
    )
    devices = set[str]()  # which is not part of the key: readings agree but for rounding
    for proxy in proxies:
        known = cache.read(proxy)
        missing = [arch for arch_id, arch in by_id.items() if arch_id not in known]
        if missing:
            found = score(dataclasses.replace(task, proxies=(proxy,)), missing, functools.partial(cache.add, proxy))
            failed = [row for row in found if row.status != "ok"]
            if failed:
                first = f"{failed[0].arch_id}: {failed[0].error}"
                raise RunError(f"{proxy} failed on {len(failed)} of {len(found)} architectures; {first}")
            cache.compact(proxy)
            known |= {row.arch_id: row for row in found}
        devices |= {known[arch_id].device for arch_id in rows} - {""}
        rows = {
            arch_id: dataclasses.replace(row, readings={**row.readings, **known[arch_id].readings})
            for arch_id, row in rows.items()
        }
    if len(devices) > 1:
        say(f"readings are of several devices ({', '.join(sorted(devices))}): their last digits differ")
    return rows


def _fingerprint(probe: Probe) -> str:
    hasher = hashlib.sha256()
    for tensor in (probe.images, probe.labels, probe.teacher_logits, *probe.teacher_maps):
        if tensor is not None:
            hasher.update(tensor.contiguous().numpy().tobytes())
    return hasher.hexdigest()


@dataclass(frozen=True)
class RankResult:
    """What `tvt rank --json` prints: the tables, and what the readings were made of."""

    columns: tuple[RankedColumn, ...]  # within the band of parameters that was asked for
    whole_table: tuple[RankedColumn, ...]  # nothing where no band was asked for
    noise: tuple[Noise, ...]  # nothing where there was one seed
    num_images: int
    num_seeds: int
    dataset: str
    teacher: str
    min_params: int | None
    max_params: int | None


@dataclass(frozen=True)
class LabelledRankResult(RankResult):
    """The same with the surrogate among the columns, as `measured`, and what it is to be compared with."""

    num_labels: int
    num_draws: int
    held_out: tuple[RankedColumn, ...]  # the score that the surrogate began with, on the rows that it is judged on


def rank(config: RunConfig, request: RankRequest, scored: Sequence[Scored]) -> RankResult:
    """Statistics within the band and, with a band, of the whole table. Raises UsageError where too few are in it."""
    banded = request.min_params is not None or request.max_params is not None
    result = RankResult(
        columns=tabulate(scored, request.columns, request.min_params, request.max_params),
        whole_table=tabulate(scored, request.columns) if banded else (),
        noise=tuple(
            Noise(one.truth.space.name, name, noise_share(values))
            for one in scored
            for name, values in one.scores.items()
            if len(values) > 1
        ),
        num_images=config.probe.num_images,
        num_seeds=request.num_seeds,
        dataset=config.data.name,
        teacher=config.teacher.name,
        min_params=request.min_params,
        max_params=request.max_params,
    )
    return _with_labels(result, request, scored) if request.labels.num_labels else result


def _with_labels(result: RankResult, request: RankRequest, scored: Sequence[Scored]) -> LabelledRankResult:
    measured, held_out = judge_labelled(scored, request.columns, request.labels, request.min_params, request.max_params)
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(RankResult)}
    return LabelledRankResult(
        **{**fields, "columns": (*result.columns, *measured)},
        num_labels=request.labels.num_labels,
        num_draws=request.labels.num_draws,
        held_out=held_out,
    )


class ReadingCache:
    """Rows by proxy, under a folder that is named by all that readings depend on but the architecture."""

    def __init__(self, key: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = cache_folder() / "readings" / digest

    def read(self, proxy: str) -> dict[str, Row]:
        """By architecture; failures are not kept, so they are tried again."""
        return {row.arch_id: row for row in self._parts(proxy).read() if row.status == "ok"}

    def add(self, proxy: str, rows: Sequence[Row]) -> None:
        """On return the rows are on disk, unless the cache cannot be written, which is said."""
        good = [row for row in rows if row.status == "ok"]
        keep_if_possible(lambda: self._parts(proxy).append(good), "the cache of readings")

    def compact(self, proxy: str) -> None:
        """Makes one part of many."""
        keep_if_possible(self._parts(proxy).compact, "the cache of readings")

    def _parts(self, proxy: str) -> Records[Row]:
        source = inspect.getsource(sys.modules[PROXIES[proxy].read.__module__])
        return Records(self.folder / f"{proxy}-{hashlib.sha256(source.encode()).hexdigest()[:8]}", ROWS)
