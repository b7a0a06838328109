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
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from tvt_ray.bench.ground_truth import ground_truth_line, sample_archs, train_cohort
from tvt_ray.cli import Parser, add_common, config_of, run
from tvt_ray.config import RunConfig
from tvt_ray.data import load_dataset
from tvt_ray.data.probe import select_balanced
from tvt_ray.distill.loop import DistillTask, Materials
from tvt_ray.distill.teacher import get_teacher
from tvt_ray.progress import Meter
from tvt_ray.space import as_space
from tvt_ray.storage import write_atomically

_trained: Any = None  # images trained on so far, over all processes


def _share_counter(counter: Any) -> None:
    global _trained  # noqa: PLW0603 (how a process of the pool gets what cannot be pickled)
    _trained = counter


def _count(images: int) -> None:
    with _trained.get_lock():
        _trained.value += images


def _train(config: RunConfig, num_images: int, tasks: Sequence[DistillTask], state_file: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    data = load_dataset(config.data)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    train = data.train.take(select_balanced(data.train.labels, num_images, config.seed))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return train_cohort(tasks, Materials(train, data.val, data.test, teacher), state_file, device, _count)


def ground_truth(args: argparse.Namespace) -> int:
    config, start = config_of(args), time.perf_counter()
    space, data = as_space(config.space), load_dataset(config.data)
    get_teacher(config.teacher, config.teacher_training, data)  # trained once, before the processes ask for it
    tasks = [
        DistillTask(space, arch, data.num_classes, config.distill)
        for arch in sample_archs(space, args.num_archs, config.seed)
    ]
    cohorts = [tasks[i : i + args.cohort_size] for i in range(0, len(tasks), args.cohort_size)]
    states = args.out.with_suffix(".state")
    column = f"{args.column}_kd_acc"
    finished = {path.stem: json.loads(path.read_text()) for path in states.glob("*.json")}
    counter = multiprocessing.get_context("spawn").Value("q", 0)
    total = len(tasks) * config.distill.epochs * args.num_images
    with (
        ProcessPoolExecutor(
            args.workers, multiprocessing.get_context("spawn"), initializer=_share_counter, initargs=(counter,)
        ) as pool,
        Meter("training", total, "images") as meter,
    ):
        jobs = {
            pool.submit(_train, config, args.num_images, cohort, states / f"{number}.pt"): number
            for number, cohort in enumerate(cohorts)
            if str(number) not in finished
        }
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=2)
            meter.advance(counter.value - meter.done)
            for job in done:
                accuracies = job.result()
                finished[str(jobs[job])] = accuracies
                write_atomically(states / f"{jobs[job]}.json", json.dumps(accuracies).encode())
                _write(args.out, tasks, finished, column)
    print(f"{len(tasks)} architectures in {args.out}, {time.perf_counter() - start:,.0f} s")
    return 0


def _write(out: Path, tasks: Sequence[DistillTask], finished: dict[str, dict[str, float]], column: str) -> None:
    """All lines so far, in the order in which the architectures were drawn."""
    known = {arch_id: accuracy for accuracies in finished.values() for arch_id, accuracy in accuracies.items()}
    ids = [task.space.arch_id(task.arch) for task in tasks]
    lines = [
        json.dumps(ground_truth_line(task, column, known[i])) for i, task in zip(ids, tasks, strict=True) if i in known
    ]
    write_atomically(out, "".join(f"{line}\n" for line in lines).encode())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ground_truth.py", description=__doc__, allow_abbrev=False)
    add_common(parser)
    parser.add_argument("--num-archs", type=int, default=56, metavar="N")
    parser.add_argument("--num-images", type=int, default=4000, metavar="N", help="training images, balanced by class")
    parser.add_argument("--cohort-size", type=int, default=14, metavar="N", help="students that share batches")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="cohorts at a time")
    parser.add_argument("--column", default="cifar10", metavar="NAME", help="accuracies go into NAME_kd_acc")
    parser.add_argument("--out", type=Path, default=Path("runs/ground_truth.jsonl"), metavar="FILE")
    parser.set_defaults(command=ground_truth)
    return parser


if __name__ == "__main__":
    sys.exit(run(_parser()))
