"""The public verbs: what the command line does, for Python. They leave the process as they found it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvt_ray.data.datasets import dataset_name
from tvt_ray.exports.formats import Wish
from tvt_ray.plugins import load_plugins
from tvt_ray.quality.comparison import Comparison
from tvt_ray.quality.evaluation import Evaluation
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.run import Run, TrainedStudent
from tvt_ray.stages.baselines import run_baselines
from tvt_ray.stages.contenders import BASELINES
from tvt_ray.stages.distill import run_distill
from tvt_ray.stages.evaluate import run_evaluate
from tvt_ray.stages.export import ExportSummary, run_export
from tvt_ray.stages.refine import RefineSummary, run_refine
from tvt_ray.stages.reorder import with_score
from tvt_ray.stages.search import run_search
from tvt_ray.storage.locations import as_location


def search(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> Run:
    """Scores `config.search.num_samples` untrained architectures, as Tune trials on Ray: the run, with its `summary`.

    `config`: a RunConfig, a YAML file, or settings to change in the defaults, as in {"search": {"num_samples": 64}}.
    `run_dir`: a folder or URI; None makes one below runs/. A Ray session that this process has is used and left; else
    one is started (or `ray_address` joined) and ended. Raises UsageError for what is wrong beforehand, RunError when
    the run could not finish; what was read is on disk either way, and `resume=True` goes on with it.
    """
    location = as_location(run_dir or f"runs/{time.strftime('%Y%m%d-%H%M%S')}")
    if config is None and resume:
        config = Run.load(str(location)).config
    summary = run_search(as_config(config), location, resume, ray_address)
    return Run(location, summary)


def refine(
    run: Run | str | Path,
    *,
    num_students: int | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> RefineSummary:
    """Trains `num_students` of a run shortly, as cohorts on Ray, and ranks all rows by what they teach.

    Afterwards `run.ranking()` is by predicted accuracy. `settings`: changes the run's own, as in
    {"refine": {"rounds": 3}}. Raises UsageError, RunError.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    wanted = {} if num_students is None else {"refine": {"num_students": num_students}}
    config = load_config(None, [run.folder.config().model_dump(mode="json"), settings or {}, wanted])
    return run_refine(config, run.folder.path, resume, ray_address)


def distill(
    run: Run | str | Path,
    *,
    top_k: int = 1,
    arch_id: str | None = None,
    score: str | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> list[TrainedStudent]:
    """Trains a run's `top_k` best, one of each shape, or the one with `arch_id`, as Ray Train jobs.

    `score`: ranks by another score, which becomes the run's. `settings`: changes the run's own, as in
    {"distill": {"epochs": 10}}. Raises UsageError, RunError.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    config = load_config(None, [with_score(run.folder.config(), score).model_dump(mode="json"), settings or {}])
    return run_distill(config, run.folder.path, None if arch_id else top_k, arch_id, resume, ray_address)


def compare(
    run: Run | str | Path,
    *,
    baselines: Sequence[str] = tuple(BASELINES),
    num_seeds: int = 1,
    arch_id: str | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> Comparison:
    """Trains a run's best student, or the one with `arch_id`, and its rivals with so many seeds: who is better.

    `baselines`: names of the table BASELINES, or of scores for whom they put first. `resume`: a student that is
    trained already is kept. Writes baselines.json and baselines.html. Raises UsageError, RunError.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    config = load_config(None, [run.folder.config().model_dump(mode="json"), settings or {}])
    return run_baselines(config, run.folder.path, baselines, num_seeds, arch_id, None, resume, ray_address)


def evaluate(
    student: TrainedStudent | str | Path,
    dataset: str | None = None,
    *,
    split: str = "test",
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """How good a student is on a split (train, val, test, all) of a dataset; None: of the one it was trained on.

    `dataset` is named as on the command line: digits, imagefolder:PATH, or a path alone.
    Writes evaluation.json and evaluation.html into `out`, by default a folder in the student's. `settings`: of how the
    data is read, as in {"data": {"label_column": "kind"}}. Raises UsageError, RunError.
    """
    folder = as_location(student.path if isinstance(student, TrainedStudent) else student)
    named = {} if dataset is None else {"data": {"name": dataset_name(dataset)}}
    return run_evaluate(folder, [settings or {}, named], split, None if out is None else as_location(out))


def export(
    student: TrainedStudent | str | Path,
    format: str = "onnx",  # noqa: A002 (as the command line has it)
    *,
    int8: bool = False,
    pixels: bool = False,
    out: str | Path | None = None,
    dataset: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ExportSummary:
    """Writes a student as onnx, pt2 or timm into `out`, by default its own folder, and checks it against the student.

    `int8`: a second ONNX file, of 8-bit matrices. `pixels`: the ONNX file takes 8-bit pixels. `dataset`: whose images
    the files are compared on, named as in `evaluate`; None: those that the student's run is of. Raises UsageError and
    RunError.
    """
    folder = as_location(student.path if isinstance(student, TrainedStudent) else student)
    named = {} if dataset is None else {"data": {"name": dataset_name(dataset)}}
    target = None if out is None else as_location(out)
    return run_export(folder, [settings or {}, named], format, Wish(int8=int8, pixels=pixels), target)


def as_config(config: RunConfig | Mapping[str, Any] | str | Path | None) -> RunConfig:
    """Raises UsageError for a file that is not there and settings that are wrong."""
    if isinstance(config, RunConfig):
        load_plugins(config.plugins)
        return config
    if config is None or isinstance(config, Mapping):
        return load_config(None, [config] if config else [])
    return load_config(Path(config).expanduser())
