"""Makes ground truth for `tvt rank`: samples architectures, distils each with one short recipe, writes JSON lines.

python benchmarks/ground_truth.py --config benchmarks/ground_truth.yaml --dataset parquet:PATH --teacher-weights FILE

Interrupted, it goes on where it was when it is called again. Students train in cohorts that share batches and the
teacher's pass, several cohorts at a time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from tvt_ray.cli.main import run
from tvt_ray.cli.options import COMMON, Parser, add_options, config_of
from tvt_ray.data.datasets import load_dataset
from tvt_ray.distillation.cohort import DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.evaluation.make_truth import ground_truth_line, sample_archs, train_cohort
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter
from tvt_ray.proxies.probe import select_balanced
from tvt_ray.runs.config import RunConfig
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.provide import get_teacher

OTHER_SECTIONS = ("search", "score", "probe", "cluster")  # of the config, which change no accuracy

_trained: Any = None  # images trained on so far, over all processes


def _share_counter(counter: Any) -> None:
    global _trained  # noqa: PLW0603 (how a process of the pool gets what cannot be pickled)
    _trained = counter


def _count(images: int) -> None:
    with _trained.get_lock():
        _trained.value += images


def _train(config: RunConfig, num_images: int, tasks: Sequence[DistillTask], state_file: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    load_plugins(config.plugins)
    data = load_dataset(config.data)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    train = data.train.take(select_balanced(data.train.labels, num_images, config.seed))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return train_cohort(tasks, DistillInputs(train, data.val, data.test, teacher), state_file, device, _count)


def ground_truth(args: argparse.Namespace) -> int:
    config, start = config_of(args), time.perf_counter()
    space, data = config.space, load_dataset(config.data)
    _check(args, space.size(), len(data.train))
    get_teacher(config.teacher, config.teacher_training, data)  # trained once, before the processes ask for it
    archs = sample_archs(space, args.num_archs, config.seed)
    tasks = [DistillTask(space, arch, data.num_classes, config.distill) for arch in archs]
    cohorts = [tasks[i : i + args.cohort_size] for i in range(0, len(tasks), args.cohort_size)]
    states = args.out.with_suffix(".state")
    _claim(states, config, args)
    finished = {int(path.stem): json.loads(path.read_text()) for path in states.glob("[0-9]*.json")}

    def finish(number: int, accuracies: dict[str, float]) -> None:
        finished[number] = accuracies
        write_atomically(states / f"{number}.json", json.dumps(accuracies).encode())
        _write(args.out, tasks, finished, f"{args.column}_kd_acc")

    left = {number: cohort for number, cohort in enumerate(cohorts) if number not in finished}
    _train_all(config, args, left, states, finish)
    print(f"{len(tasks)} architectures in {args.out}, {time.perf_counter() - start:,.0f} s")
    return 0


def _check(args: argparse.Namespace, space_size: int, num_train: int) -> None:
    limits = {"num-archs": (args.num_archs, space_size), "num-images": (args.train_images, num_train)}
    for name, (value, limit) in limits.items():
        if not 1 <= value <= limit:
            raise UsageError(f"--{name} is 1 to {limit:,} here; got {value:,}")
    if args.cohort_size < 1 or args.workers < 1:
        raise UsageError("--cohort-size and --workers are at least 1")


def _claim(states: Path, config: RunConfig, args: argparse.Namespace) -> None:
    """Raises UsageError where the folder holds the states of another recipe."""
    recipe = {key: value for key, value in config.model_dump(mode="json").items() if key not in OTHER_SECTIONS}
    recipe |= {"num_archs": args.num_archs, "num_images": args.train_images, "cohort_size": args.cohort_size}
    file, text = states / "recipe.json", json.dumps(recipe, indent=1)
    if file.exists() and file.read_text() != text:
        raise UsageError(f"{states} holds students of another recipe ({file}); move it away, or choose another --out")
    write_atomically(file, text.encode())


def _train_all(
    config: RunConfig,
    args: argparse.Namespace,
    cohorts: Mapping[int, Sequence[DistillTask]],
    states: Path,
    finish: Callable[[int, dict[str, float]], None],
) -> None:
    """Several cohorts at a time, a process each."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    total = sum(map(len, cohorts.values())) * config.distill.epochs * args.train_images
    with (
        ProcessPoolExecutor(args.workers, context, initializer=_share_counter, initargs=(counter,)) as pool,
        Meter("training", total, "images") as meter,
    ):
        jobs = {
            pool.submit(_train, config, args.train_images, cohort, states / f"{number}.pt"): number
            for number, cohort in cohorts.items()
        }
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=2)
            meter.advance(counter.value - meter.done)
            for job in done:
                finish(jobs[job], job.result())


def _write(out: Path, tasks: Sequence[DistillTask], finished: Mapping[int, Mapping[str, float]], column: str) -> None:
    """All lines so far, in the order in which the architectures were drawn."""
    known = {arch_id: accuracy for accuracies in finished.values() for arch_id, accuracy in accuracies.items()}
    ids = [task.space.arch_id(task.arch) for task in tasks]
    lines = [
        json.dumps(ground_truth_line(task, column, known[i])) for i, task in zip(ids, tasks, strict=True) if i in known
    ]
    write_atomically(out, "".join(f"{line}\n" for line in lines).encode())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ground_truth.py", description=__doc__)
    add_options(parser, "config", *COMMON)
    parser.add_argument("--num-archs", type=int, default=56, metavar="N")
    parser.add_argument(
        "--num-images", dest="train_images", type=int, default=4000, metavar="N", help="for training, balanced by class"
    )
    parser.add_argument("--cohort-size", type=int, default=14, metavar="N", help="students that share batches")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="cohorts at a time")
    parser.add_argument("--column", default="cifar10", metavar="NAME", help="accuracies go into NAME_kd_acc")
    parser.add_argument("--out", type=Path, default=Path("runs/ground_truth.jsonl"), metavar="FILE")
    parser.set_defaults(command=ground_truth)
    return parser


if __name__ == "__main__":
    sys.exit(run(_parser()))
