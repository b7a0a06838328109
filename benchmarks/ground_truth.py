"""Makes ground truth for `tvt rank`: samples architectures, distils each with one short recipe, writes JSON lines.

python -m benchmarks ground_truth --config benchmarks/ground_truth.yaml --dataset parquet:PATH --teacher-weights FILE

Interrupted, it goes on where it was when it is called again. Students train in cohorts that share batches and the
teacher's pass, several cohorts at a time. The result: the file, how many architectures are in it, and the lowest and
highest of their accuracies in percent.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from benchmarks.runner import CONFIG, Record
from tvt_ray.cli.options import add_options, config_of
from tvt_ray.cli.output import print_table
from tvt_ray.data.datasets import load_dataset
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.errors import UsageError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter
from tvt_ray.proxies.probe import select_balanced
from tvt_ray.runs.config import RunConfig
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.training.learner import WorkerContext, from_bytes, to_bytes
from tvt_ray.training.pace import device_here
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits import Arch, Space

_trained: Any = None  # images trained on so far, over all processes


def sample_archs(space: Space, count: int, seed: int) -> list[Arch]:
    """`count` different architectures, drawn as the space draws them; the first k of a larger sample are the same.

    Raises ValueError when the space has fewer.
    """
    if count > space.size():
        raise ValueError(f"the space has {space.size():,} architectures, {count:,} were asked for")
    rng, archs = random.Random(f"ground truth/{seed}"), dict[str, Arch]()
    while len(archs) < count:
        arch = space.sample(rng)
        archs.setdefault(space.arch_id(arch), arch)
    return list(archs.values())


def train_cohort(
    tasks: Sequence[DistillTask],
    inputs: DistillInputs,
    state_file: Path,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] = lambda images: None,
) -> Cohort:
    """Trained to the end. Each epoch leaves its state in `state_file`, from which an interrupted call goes on."""
    cohort = Cohort(tasks, inputs, WorkerContext(torch.device(device)))
    if state_file.exists():
        cohort.load_state_dict(from_bytes(state_file.read_bytes()))
    while not cohort.done:
        cohort.run_epoch(on_batch)
        write_atomically(state_file, to_bytes(cohort.state_dict()))
    return cohort


def last_accuracies(cohort: Cohort) -> dict[str, float]:
    """Test accuracy in percent by training, of the weights at the end: no epoch is chosen, so none is favoured."""
    students = {name: each.student for name, each in cohort.learners.items()}
    return cohort.accuracies(students, cohort.inputs.test)


def of_length(settings: DistillSettings, epochs: int) -> DistillSettings:
    """A recipe in so many epochs: as large a part of them with frozen stages, and as large a part of warming up."""
    parts = {"warmup_epochs": settings.warmup_epochs, "stem_frozen_epochs": settings.stem_frozen_epochs}
    share = epochs / settings.epochs
    return settings.with_(epochs=epochs, **{name: max(1, round(share * part)) for name, part in parts.items() if part})


def ground_truth_line(task: DistillTask, column: str, accuracy: float) -> dict[str, Any]:
    """One line of a ground-truth file, as `tvt rank` reads it."""
    return {
        "space": task.space.name,
        "arch": task.space.to_json(task.arch),
        "params": task.space.cost(task.arch, task.num_classes).params,
        column: round(accuracy, 4),
    }


def _share_counter(counter: Any) -> None:
    global _trained  # noqa: PLW0603 (how a process of the pool gets what cannot be pickled)
    _trained = counter
    ensure_torchvision()  # before a teacher of timm's is unpickled


def count(images: int) -> None:
    """Tells the process that began this one how many images were trained on."""
    with _trained.get_lock():
        _trained.value += images


def _train(config: RunConfig, num_images: int, tasks: Sequence[DistillTask], state_file: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    load_plugins(config.plugins)
    data = load_dataset(config.data)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    train = data.train.take(select_balanced(data.train.labels, num_images, config.seed))
    inputs = DistillInputs(train, data.val, data.test, teacher)
    return last_accuracies(train_cohort(tasks, inputs, state_file, device_here(), count))


def add(parser: argparse.ArgumentParser) -> None:
    add_options(parser, *CONFIG)
    parser.add_argument("--num-archs", type=int, default=56, metavar="N")
    parser.add_argument(
        "--num-images", dest="train_images", type=int, default=4000, metavar="N", help="for training, balanced by class"
    )
    parser.add_argument("--cohort-size", type=int, default=14, metavar="N", help="students that share batches")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="cohorts at a time")
    parser.add_argument("--column", default="cifar10", metavar="NAME", help="accuracies go into NAME_kd_acc")
    parser.add_argument("--file", type=Path, metavar="FILE", help="of JSON lines (default: beside the result)")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    config, file = config_of(args), (args.file or record.folder / "ground_truth.jsonl").absolute()
    space, data = config.space, load_dataset(config.data)
    _check(args, space.size(), len(data.train))
    get_teacher(config.teacher, config.teacher_training, data)  # trained once, before the processes ask for it
    archs = sample_archs(space, args.num_archs, config.seed)
    tasks = [DistillTask(space, arch, data.num_classes, config.distill) for arch in archs]
    starts = range(0, len(tasks), args.cohort_size)
    cohorts = {f"cohort{number}": tasks[i : i + args.cohort_size] for number, i in enumerate(starts)}
    left = {part: cohort for part, cohort in cohorts.items() if record.find(part) is None}
    calls = {
        part: functools.partial(_train, config, args.train_images, cohort, record.folder / f"{part}.pt")
        for part, cohort in left.items()
    }
    total = sum(map(len, left.values())) * config.distill.epochs * args.train_images
    in_processes(calls, total, args.workers, record)
    known = {arch_id: acc for part in cohorts for arch_id, acc in record.find(part).items()}
    lines = [
        json.dumps(ground_truth_line(task, f"{args.column}_kd_acc", known[space.arch_id(task.arch)])) for task in tasks
    ]
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode())
    return {"file": str(file), "num_archs": len(known), "lowest": min(known.values()), "highest": max(known.values())}


def _check(args: argparse.Namespace, space_size: int, num_train: int) -> None:
    limits = {"num-archs": (args.num_archs, space_size), "num-images": (args.train_images, num_train)}
    for name, (value, limit) in limits.items():
        if not 1 <= value <= limit:
            raise UsageError(f"--{name} is 1 to {limit:,} here; got {value:,}")
    if args.cohort_size < 1 or args.workers < 1:
        raise UsageError("--cohort-size and --workers are at least 1")


def in_processes(
    calls: Mapping[str, Callable[[], Any]],
    total: int,
    workers: int,
    record: Record,
    on_part: Callable[[], None] = lambda: None,
) -> None:
    """Parts of a record, several at a time, a process each; `total`: images that they train on, as `count` tells.

    `on_part` is called when another part is kept.
    """
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with (
        ProcessPoolExecutor(workers, context, initializer=_share_counter, initargs=(counter,)) as pool,
        Meter("training", total, "images") as meter,
    ):
        jobs = {pool.submit(call): part for part, call in calls.items()}
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=2)
            meter.advance(counter.value - meter.done)
            for job in done:
                record.keep(jobs[job], job.result())
                on_part()


def show(result: Mapping[str, Any]) -> None:
    row = [result["file"], str(result["num_archs"]), f"{result['lowest']:.2f}", f"{result['highest']:.2f}"]
    print_table("accuracy, percent", ["file", "architectures", "lowest", "highest"], [row])
