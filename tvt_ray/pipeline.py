"""From a config to a searched space and trained students: where dataset, teacher, scoring and training meet."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tvt_ray.config import RunConfig, validate
from tvt_ray.data import Dataset, build_probe_images, load_dataset
from tvt_ray.data.verify import verify_images
from tvt_ray.distill.export import ARCH_FILE, StudentCard, load_student, save_student
from tvt_ray.distill.loop import DistillTask, Materials
from tvt_ray.distill.teacher import cached_teacher_path, get_teacher, teacher_accuracy
from tvt_ray.errors import RunError, UsageError
from tvt_ray.models.kernels import HAS_BF16
from tvt_ray.models.teacher import Teacher, build_teacher
from tvt_ray.progress import Meter, say
from tvt_ray.proxies import build_probe
from tvt_ray.report import write_report
from tvt_ray.runs import RunFolder, summary
from tvt_ray.search.algorithms import Sampler, SearchSettings, build_algorithm, objectives
from tvt_ray.search.fusion import Calibration, calibration_rng
from tvt_ray.search.rows import Row
from tvt_ray.search.scorer import Scorer, ScoringTask
from tvt_ray.search.selection import best_score, pareto_front, top_k
from tvt_ray.search.store import RowWriter
from tvt_ray.space import Arch, Budget, Space, as_space
from tvt_ray.space.base import format_count
from tvt_ray.storage import FolderLock, Location, write_atomically

if TYPE_CHECKING:  # they import Ray, which commands that score nothing on it do without
    from tvt_ray.search.slots import Job
    from tvt_ray.search.tune import RowRecorder

NUM_LISTED = 10
NUM_DRY_RUN_SCORES = 4
NUM_BUDGET_DRAWS = 2000
ENUMERABLE = 20_000  # spaces up to this size are counted rather than sampled
SETTINGS_FILE = "distill.json"


@dataclass(frozen=True)
class SearchResult:
    """What `search --json` prints."""

    run_dir: str
    num_requested: int
    num_scored: int
    num_failed: int
    num_unique: int
    wall_s: float  # everything, from dataset to report
    archs_per_s: float  # of the trials alone
    best: list[dict[str, Any]]
    pareto: list[dict[str, Any]]  # no other scores higher at as few FLOPs
    num_workers: int
    num_pids: int  # distinct processes that scored
    num_nodes: int  # distinct nodes of the cluster that they were on
    archs_per_trial: int
    note: str | None  # why fewer were scored than requested


def load_data(config: RunConfig) -> Dataset:
    """The dataset, every image of it decoded once. Raises UsageError for whatever is wrong with it."""
    data = load_dataset(config.data)
    check_budget(as_space(config.space), config.budget, data.num_classes)
    verify_images(data)
    return data


def check_budget(space: Space, budget: Budget, num_classes: int) -> None:
    """Raises UsageError when no architecture can meet the budget, saying the smallest (largest) there is."""
    small, large = space.smallest(num_classes), space.largest(num_classes)
    for name in ("params", "flops"):
        low, high = getattr(small, name), getattr(large, name)
        ceiling, floor = getattr(budget, f"max_{name}"), getattr(budget, f"min_{name}")
        if ceiling is not None and ceiling < low:
            raise UsageError(f"no architecture of this space meets max_{name} {ceiling:,}: the smallest has {low:,}")
        if floor is not None and floor > high:
            raise UsageError(f"no architecture of this space meets min_{name} {floor:,}: the largest has {high:,}")


def make_task(config: RunConfig, data: Dataset, teacher: Teacher) -> ScoringTask:
    """The probe, what the teacher makes of it, and all else that a worker needs."""
    images = build_probe_images(data.train, config.probe, config.space.image_size, teacher.image_size)
    probe = build_probe(images, teacher, getattr(torch, config.probe.precision))
    return ScoringTask(
        as_space(config.space),
        data.num_classes,
        config.score.proxies,
        config.seed,
        probe,
        config.probe.num_inits,
        config.search.max_seconds_per_arch,
    )


def calibration_archs(config: RunConfig, num_classes: int) -> list[Arch]:
    """The sample that fixes the score's scale: drawn from the space within the budget, by the run's seed alone."""
    rng, space = calibration_rng(config.seed), as_space(config.space)
    archs: dict[str, Arch] = {}
    for _ in range(1000 * config.score.calibration_samples):
        arch = space.sample(rng)
        if config.budget.admits(space.cost(arch, num_classes)):
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


def search(config: RunConfig, run_dir: Location, resume: bool = False, ray_address: str | None = None) -> SearchResult:
    """Scores `config.search.num_samples` different architectures and writes the run folder.

    Raises UsageError for what is wrong beforehand, RunError when the run could not finish; rows are on disk either way.
    """
    from tvt_ray.cluster import connect

    start, folder = time.perf_counter(), RunFolder(run_dir)
    folder.check(config, resume)
    data = load_data(config)
    sample = calibration_archs(config, data.num_classes)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    task = make_task(config, data, teacher)
    connect(ray_address)
    with folder.lock() as lock:
        folder.check(config, resume)  # again: another search may have been here meanwhile
        folder.claim(config)
        trials = run_search(config, folder, task, sample, lock)
        best, pareto = top_k(trials.rows, NUM_LISTED), pareto_front(trials.rows)
        folder.write_top(best, pareto)
        write_report(folder.report_file, trials.rows, config)
    scored = sum(row.status == "ok" for row in trials.rows)
    if not scored:
        raise RunError(f"all {len(trials.rows)} architectures failed, the first with: {trials.rows[0].error}")
    return SearchResult(
        run_dir=str(run_dir),
        num_requested=config.search.num_samples,
        num_scored=scored,
        num_failed=len(trials.rows) - scored,
        num_unique=len({row.arch_id for row in trials.rows}),
        wall_s=round(time.perf_counter() - start, 2),
        archs_per_s=round(trials.num_new / trials.seconds, 2) if trials.num_new else 0.0,
        best=[summary(row) for row in best],
        pareto=[summary(row) for row in pareto],
        num_workers=trials.num_workers,
        num_pids=len(trials.workers),
        num_nodes=len({worker.partition("/")[0] for worker in trials.workers}),
        archs_per_trial=trials.archs_per_trial,
        note=trials.note,
    )


@dataclass(frozen=True)
class Trials:
    """What the scoring part of a search gives."""

    rows: list[Row]
    num_new: int
    seconds: float
    num_workers: int
    workers: set[str]  # "node/pid"
    archs_per_trial: int
    note: str | None


def run_search(
    config: RunConfig, folder: RunFolder, task: ScoringTask, sample: Sequence[Arch], lock: FolderLock
) -> Trials:
    """Replays the rows of an earlier run, calibrates unless it did, and scores what is left, all as Tune trials."""
    from tvt_ray.search.slots import settle

    job = settle(config.search, task)
    if config.probe.precision == "bfloat16" and not job.slots.gpus_each and not HAS_BF16:
        say("probe.precision is bfloat16, for which this processor has no instructions: float32 is many times faster")
    store = folder.store()
    earlier = store.read()
    sampler = _make_sampler(config, task, earlier)
    try:
        with RowWriter(store, lock.check) as writer:
            recorder, batch = _run_trials(config, folder, job, sample, sampler, earlier, writer)
    except RunError as error:
        raise RunError(f"{error}; {_how_to_go_on(folder)}") from None
    seconds = time.monotonic() - recorder.began if recorder.began else 0.0
    lock.check()
    store.compact()
    rows, wanted = store.read(), config.search.num_samples
    note = _explain_count(config, len(rows), sampler.exhausted)
    if recorder.stop_reason or (note is None and len(rows) < wanted):
        reason = f": {recorder.stop_reason}" if recorder.stop_reason else ""
        raise RunError(f"stopped after {len(rows):,} of {wanted:,} architectures{reason}; {_how_to_go_on(folder)}")
    return Trials(rows, recorder.num_rows, seconds, job.slots.count, recorder.workers, batch, note)


def _run_trials(
    config: RunConfig,
    folder: RunFolder,
    job: Job,
    sample: Sequence[Arch],
    sampler: Sampler,
    earlier: Sequence[Row],
    writer: RowWriter,
) -> tuple[RowRecorder, int]:
    """What was recorded, and how many architectures a trial had."""
    from tvt_ray.search import tune

    settings, stored = config.search, _stored_calibration(folder)
    wanted = min(settings.num_samples, config.space.size())
    total = max(0, wanted - len(earlier))
    scoring = ("scoring", wanted, "architectures", len(earlier))

    def batch_size(seconds_each: float) -> int:
        return tune.pick_batch_size(settings.archs_per_trial, seconds_each, total, job.slots.count)

    def calibrate(rows: Sequence[Row]) -> int:
        recorder.calibration, seconds_each = _make_calibration(folder, rows)
        meter.next(*scoring)
        return batch_size(seconds_each)

    first = Meter(*scoring) if stored else Meter("calibrating", len(sample), "architectures")
    with first as meter:
        recorder = tune.RowRecorder(
            writer,
            stored[0] if stored else None,
            config.score.name,
            sampler,
            _num_objectives(settings),
            meter,
            best_score(earlier),
            settings.max_failure_share,
        )
        calibrating = None if stored else tune.Calibrating(sample, calibrate)
        batch = batch_size(stored[1]) if stored else tune.spread(len(sample), job.slots.count)
        if total or calibrating:
            batch = tune.run_trials(job, recorder, total, batch, calibrating)
    return recorder, batch


def _how_to_go_on(folder: RunFolder) -> str:
    return f"rows that were written are in {folder.rows_folder}; go on with: {folder.search_command}"


def _num_objectives(settings: SearchSettings) -> int:
    return 2 if settings.objectives == "score_flops" else 1


def _stored_calibration(folder: RunFolder) -> tuple[Calibration, float] | None:
    """An earlier run's, and the seconds that an architecture took in it."""
    if not folder.calibration_file.exists():
        return None
    stored: Any = json.loads(folder.calibration_file.read_text())
    return Calibration.load(folder.calibration_file), stored["seconds_each"]


def _make_calibration(folder: RunFolder, rows: Sequence[Row]) -> tuple[Calibration, float]:
    """From the sample's rows, and stored; and the seconds that one of them took."""
    calibration = Calibration.from_rows(rows)
    if not calibration.readings:
        raise RunError(f"none of the {len(rows)} calibration architectures could be scored; the first: {rows[0].error}")
    # The first of a worker's architectures pays for its start; the median does not.
    seconds_each = sorted(row.seconds for row in rows)[len(rows) // 2]
    calibration.save(folder.calibration_file, seconds_each)
    return calibration, seconds_each


def _make_sampler(config: RunConfig, task: ScoringTask, earlier: Sequence[Row]) -> Sampler:
    settings, space = config.search, as_space(config.space)
    if settings.searcher != "exhaustive" and settings.num_samples >= space.size():
        say(f"the space has {space.size():,} architectures, {settings.num_samples:,} were asked for: enumerating it")
        settings = settings.model_copy(update={"searcher": "exhaustive", "objectives": "score"})
    algorithm = build_algorithm(settings, space, config.seed)
    sampler = Sampler(algorithm, space, config.budget, task.num_classes, config.seed)
    for row in earlier:
        sampler.replay(space.from_json(row.arch), objectives(row, _num_objectives(settings)))
    if earlier:
        say(f"resuming: {len(earlier):,} architectures were scored before")
    return sampler


def _explain_count(config: RunConfig, num_rows: int, exhausted: bool) -> str | None:
    """Why there are fewer rows than requested, where that is not a failure."""
    wanted, size = config.search.num_samples, config.space.size()
    if num_rows >= wanted:
        return None
    if num_rows >= size:
        return f"the whole space was scored: it has {size:,} architectures, {wanted:,} were requested"
    if exhausted:
        found = f"{num_rows:,} of the {wanted:,} requested were scored"
        return f"{found}: no more were found within the budget ({config.budget})"
    return None


def dry_run(config: RunConfig) -> dict[str, Any]:
    """What a search would do, from a few architectures scored here and now. Nothing is written, Ray is not started."""
    data = load_data(config)
    space, num_classes = as_space(config.space), data.num_classes
    share, counted = _budget_share(config, num_classes)
    torch.set_num_threads(1)
    teacher, trains = _teacher_for_timing(config, data)
    scorer = Scorer(make_task(config, data, teacher))
    archs = calibration_archs(config, num_classes)[: NUM_DRY_RUN_SCORES + 1]
    rows = scorer.score_all(archs)  # the first one warms up
    seconds = [row.seconds for row in rows[1:] or rows]
    cores = os.cpu_count() or 1
    wanted = min(config.search.num_samples, round(share * space.size()) if counted else space.size())
    each = sum(seconds) / len(seconds)
    small, large = space.smallest(num_classes), space.largest(num_classes)
    return {
        "dataset": {
            "name": data.name,
            "train": len(data.train),
            "val": len(data.val),
            "test": len(data.test),
            "classes": num_classes,
        },
        "teacher": config.teacher.name,
        "teacher_would_be_trained": trains,
        "space": space.name,
        "space_size": space.size(),
        "params_range": [small.params, large.params],
        "flops_range": [small.flops, large.flops],
        "budget": str(config.budget),
        "budget_share": share,
        "budget_share_counted": counted,
        "searcher": config.search.searcher,
        "num_samples": wanted,
        "seconds_per_arch": each,
        "cores": cores,
        "estimated_s": each * (wanted + config.score.calibration_samples) / cores,
    }


def _budget_share(config: RunConfig, num_classes: int) -> tuple[float, bool]:
    """Share of the space within the budget, and whether it was counted rather than sampled."""
    space, counted = as_space(config.space), config.space.size() <= ENUMERABLE
    rng = calibration_rng(config.seed)
    archs = list(space.enumerate()) if counted else [space.sample(rng) for _ in range(NUM_BUDGET_DRAWS)]
    return sum(config.budget.admits(space.cost(arch, num_classes)) for arch in archs) / len(archs), counted


def _teacher_for_timing(config: RunConfig, data: Dataset) -> tuple[Teacher, bool]:
    """The teacher if it is to be had at once, else an untrained one: scoring takes as long with either."""
    path = cached_teacher_path(config.teacher, config.teacher_training, data)
    if config.teacher.weights or path.exists():
        return get_teacher(config.teacher, config.teacher_training, data)[0], False
    return build_teacher(config.teacher.model_copy(update={"pretrained": False}), data.num_classes).freeze(), True


def score_one(config: RunConfig, arch_file: Path, run_dir: Location | None) -> dict[str, Any]:
    """One architecture's readings and score, on the scale of a run's calibration or of one made now, without Ray."""
    arch = read_arch(arch_file, as_space(config.space))
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    torch.set_num_threads(1)  # as in the search's workers, and so to the same last bit
    scorer = Scorer(make_task(config, data, teacher))
    row = scorer.score(arch)
    if row.status != "ok":
        raise RunError(f"{row.arch_id} could not be scored: {row.error}")
    stored = RunFolder(run_dir).calibration_file if run_dir else None
    if stored and stored.exists():
        calibration = Calibration.load(stored)
    else:
        calibration = _calibrate_here(scorer, calibration_archs(config, data.num_classes))
    return {
        "arch_id": row.arch_id,
        "score": calibration.fuse(config.score.name, row),
        "params": row.params,
        "flops": row.flops,
        "components": dict(row.components),
    }


def _calibrate_here(scorer: Scorer, archs: Sequence[Arch]) -> Calibration:
    """On this machine's cores, a thread each: torch computes outside the interpreter lock."""
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Meter("calibrating", len(archs), "architectures") as meter:
        for row in pool.map(scorer.score, archs):
            rows.append(row)
            meter.advance(1)
    return Calibration.from_rows(rows)


def read_arch(path: Path, space: Space) -> Arch:
    """An architecture file: the JSON itself, or under the key `arch` beside `space`. Raises UsageError."""
    if not path.is_file():
        raise UsageError(f"there is no architecture file {path}")
    try:
        entry = json.loads(path.read_text())
        if isinstance(entry, dict) and isinstance(entry.get("arch"), dict):
            entry = {**entry["arch"], **({"space": entry["space"]} if "space" in entry else {})}
        return space.from_json(entry)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from None


def select_rows(folder: RunFolder, k: int | None, arch_id: str | None) -> list[Row]:
    """The best `k` rows of a run, or the one with `arch_id`. Raises UsageError when there are none."""
    rows = folder.store().read()
    if arch_id is not None:
        chosen = [row for row in rows if row.arch_id == arch_id]
        if not chosen:
            raise UsageError(f"run {folder.path} has no architecture {arch_id!r}; top.json lists the best")
        return chosen
    best = top_k(rows, k or 1)
    if not best:
        raise UsageError(f"run {folder.path} has no scored architectures to distil")
    return best


def distill(
    config: RunConfig,
    run_dir: Location,
    top: int | None = None,
    arch_id: str | None = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> list[dict[str, Any]]:
    """Trains the chosen architectures of a run; each becomes run_dir/distill/<arch_id>. What `distill --json` lists.

    With `resume`, students that are finished with the same settings are kept and unfinished ones go on from their last
    checkpoint. Raises UsageError where a folder holds a training that would be lost.
    """
    folder = RunFolder(run_dir)
    rows = select_rows(folder, top, arch_id)
    for row in rows:
        _check_student_folder(folder.distill_folder / row.arch_id, config, resume)
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    left = [row for row in rows if not (folder.distill_folder / row.arch_id / ARCH_FILE).exists()]
    if left:
        teacher_test_acc = teacher_accuracy(teacher, data.test)
        say(f"teacher: {teacher.name} reaches {teacher_test_acc:.2f} % on the test split")
        from tvt_ray.cluster import connect, wait_for_gpus

        connect(ray_address)
        wait_for_gpus(config.search.min_gpus, config.search.gpu_timeout_s)
        try:
            _train(config, folder, left, data, teacher, teacher_test_acc)
        except RunError as error:
            raise RunError(f"{error}; go on with: {folder.distill_command(top, arch_id)}") from None
    return [_student_entry(folder.distill_folder / row.arch_id) for row in rows]


def _check_student_folder(path: Location, config: RunConfig, resume: bool) -> None:
    """Raises UsageError where a folder holds a training that would be lost, or was begun with other settings."""
    settings, file = config.distill.model_dump(mode="json"), path / SETTINGS_FILE
    if not file.exists():
        return
    if not resume:
        state = "a trained student" if (path / ARCH_FILE).exists() else "an unfinished training"
        raise UsageError(f"{path} holds {state}; --resume goes on with it, or move it away to train anew")
    stored = json.loads(file.read_text())
    changed = [key for key in settings if settings[key] != stored.get(key) and key not in _HOW_NOT_WHAT]
    if changed:
        key = changed[0]
        what = f"distill.{key} is {settings[key]} here and {stored.get(key)} there"
        raise UsageError(f"{path} was begun with other settings: {what}; move it away to train anew")


_HOW_NOT_WHAT = ("num_workers", "cpus_per_worker", "gpus_per_worker", "loader_workers", "max_failures")


def _train(
    config: RunConfig, folder: RunFolder, rows: Sequence[Row], data: Dataset, teacher: Teacher, teacher_test_acc: float
) -> None:
    from tvt_ray.distill.train import allot, train_students

    share = allot(config.distill, len(rows))
    for row in rows:
        settings = json.dumps(config.distill.model_dump(mode="json"), indent=1)
        write_atomically(folder.distill_folder / row.arch_id / SETTINGS_FILE, settings.encode())
    space = as_space(config.space)
    materials = Materials(data.train.portable(), data.val.portable(), data.test.portable(), teacher)
    tasks = {
        row.arch_id: DistillTask(space, space.from_json(row.arch), data.num_classes, config.distill) for row in rows
    }

    def save(arch_id: str, trained: Any) -> None:
        results = {
            "epochs": config.distill.epochs,
            "val_acc": max(epoch["val_acc"] for epoch in trained.history),
            "test_acc": trained.test_acc,
            "teacher": teacher.name,
            "teacher_test_acc": teacher_test_acc,
            "dataset": data.name,
        }
        card = StudentCard(space, tasks[arch_id].arch, data.class_names, results)
        save_student(folder.distill_folder / arch_id, card, trained.weights, trained.history)

    train_students(tasks, materials, folder.distill_folder, share, save)


def _student_entry(path: Location) -> dict[str, Any]:
    card = load_student(path).card
    results: Mapping[str, Any] = card.results
    cost = card.space.cost(card.arch, len(card.class_names))
    return {
        "arch_id": card.space.arch_id(card.arch),
        "params": cost.params,
        "epochs": results["epochs"],
        "val_acc": results["val_acc"],
        "test_acc": results["test_acc"],
        "teacher_test_acc": results["teacher_test_acc"],
        "path": str(path),
    }


def estimate_text(plan: Mapping[str, Any]) -> list[str]:
    """A dry run in sentences."""
    data, (low, high) = plan["dataset"], plan["params_range"]
    images = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test"))
    trained = ", which would be trained first" if plan["teacher_would_be_trained"] else ""
    share = f"{'' if plan['budget_share_counted'] else 'about '}{plan['budget_share']:.1%} of the space"
    each, total = 1e3 * plan["seconds_per_arch"], plan["estimated_s"]
    return [
        f"dataset   {data['name']}: {images} images, {data['classes']} classes",
        f"teacher   {plan['teacher']}{trained}",
        f"space     {plan['space']}: {plan['space_size']:,} architectures, "
        f"{format_count(low)} to {format_count(high)} parameters",
        f"budget    {plan['budget']}: {share}",
        f"search    {plan['num_samples']:,} architectures by {plan['searcher']}",
        f"time      {each:.1f} ms an architecture and core: about {total:,.0f} s on {plan['cores']} cores",
    ]


def rerank(run_dir: Location, score: str | None, k: int) -> dict[str, Any]:
    """A finished run's rows under any score, from the stored readings; writes its report anew."""
    folder = RunFolder(run_dir)
    config = folder.config()
    if score is not None:
        config = validate({**config.model_dump(mode="json"), "score": {**config.score.model_dump(), "name": score}})
    rows = folder.store().read()
    if not rows:
        raise UsageError(f"run {run_dir} has no rows yet")
    calibration = Calibration.load(folder.calibration_file)
    rows = [row.with_score(calibration.fuse(config.score.name, row)) for row in rows]
    write_report(folder.report_file, rows, config)
    return {
        "run_dir": str(run_dir),
        "score": config.score.name,
        "num_rows": len(rows),
        "best": [summary(row) for row in top_k(rows, k)],
        "report": str(folder.report_file),
    }


def describe_data(config: RunConfig) -> dict[str, Any]:
    """Images per class and split, after decoding every image once."""
    data = load_dataset(config.data)
    verify_images(data)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    counts = {name: np.bincount(split.labels, minlength=data.num_classes).tolist() for name, split in splits.items()}
    return {
        "dataset": data.name,
        "num_classes": data.num_classes,
        "num_images": {name: len(split) for name, split in splits.items()},
        "classes": {label: {name: counts[name][i] for name in splits} for i, label in enumerate(data.class_names)},
    }
