"""What a step of distillation costs beside a plain loop and timm's task, what waiting for images does, and two workers.

python -m benchmarks distill [--config FILE] [--dataset NAME] [--steps 40] [--short-epochs 40] [--max-params N]

One student, the largest of 200 drawn within the budget, learns from labels and the teacher's logits in three ways, in
turn and on the same batches: by this package's cohort, by a loop of a dozen lines, and by timm's
`LogitDistillationTask` in such a loop. Then the cohort alone on one thread, against two processes of one thread each
that share each batch. Then a cohort of eight students against the same eight one after the other. At last
short epochs, of two batches, in a Ray Train job and in this process, on one thread both: what a job adds to them.

The result: `speed_ratio` (seconds of the plain loop over those of the cohort), `timm_ratio` (the same of
timm's), `data_wait_share` (of the cohort's time), `scaling_2_workers` (images per second of two over those of one),
`cohort_ratio` (seconds of the eight alone over those of the cohort) and `job_ratio` (seconds of the short epochs in
this process over those of the job).
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.runner import CONFIG, Record
from tvt_ray.cli.options import add_options, own_config_of
from tvt_ray.cli.output import print_table
from tvt_ray.cluster.connection import connected
from tvt_ray.cluster.settings import ClusterSettings
from tvt_ray.cluster.slots import allot
from tvt_ray.cluster.training import Trained, train_students
from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD, train_transform
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.planning.estimate import largest_arch
from tvt_ray.progress import say
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import load_data
from tvt_ray.teachers import build_teacher
from tvt_ray.training.learner import WorkerContext
from tvt_ray.training.loaders import ShuffledBatches, train_loader
from tvt_ray.training.pace import finished
from tvt_ray.vits import build_student

CPU = torch.device("cpu")
COHORT_SIZE = 8  # students
ROUNDS = 2  # each way is timed so often, in turn, and its best counts


def add(parser: argparse.ArgumentParser) -> None:
    add_options(parser, *CONFIG, "max-params")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="batches of each epoch that is timed")
    parser.add_argument("--short-epochs", type=int, default=40, metavar="N", help="of two batches, in a job and here")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    torch.set_num_threads(1)
    task, inputs = prepare(own_config_of(args), args.steps)
    times = record.once("steps", time_steps, task, inputs)
    times |= record.once("workers", time_workers, task, inputs)
    times |= record.once("cohort", together, task, inputs, COHORT_SIZE)
    short = record.once("short-epochs", short_epochs, task, inputs, args.short_epochs)
    return {
        "speed_ratio": round(times["plain loop"] / times["cohort"], 3),
        "timm_ratio": round(times["timm"] / times["cohort"], 3),
        "data_wait_share": round(times.pop("wait"), 3),
        "scaling_2_workers": round(times["one worker"] / times["two workers"], 2),
        "cohort_ratio": round(times["eight singly"] / times["cohort of 8"], 2),
        "job_ratio": round(short["here"] / short["as a job"], 3),
        "images_per_s": {name: round(len(inputs.train) / seconds, 1) for name, seconds in times.items()},
        "short_epochs_s": {name: round(seconds, 1) for name, seconds in short.items()},
    }


def time_steps(task: DistillTask, inputs: DistillInputs, device: torch.device = CPU) -> dict[str, float]:
    """Seconds of an epoch's steps, the best of each way, and the least share that a cohort waited for images."""
    ways = (by_cohort, plainly, by_timm)
    rounds = [tuple(way(task, inputs, device) for way in ways) for _ in range(ROUNDS)]
    cohort, plain, timm = zip(*rounds, strict=True)
    seconds, waits = zip(*cohort, strict=True)
    return {"cohort": min(seconds), "plain loop": min(plain), "timm": min(timm), "wait": min(waits)}


def time_workers(task: DistillTask, inputs: DistillInputs) -> dict[str, float]:
    return {"one worker": by_workers(task, inputs, 1), "two workers": by_workers(task, inputs, 2)}


def prepare(config: RunConfig, steps: int) -> tuple[DistillTask, DistillInputs]:
    """A student, and the images of `steps` batches. The teacher has random weights: a step takes as long."""
    data, space = load_data(config), config.space
    arch = largest_arch(config, data.num_classes)
    loss = config.distill.loss.model_copy(update={"weights": {"cross_entropy": 1.0, "logits": 1.0}})
    changes = {"loss": loss, "epochs": 1, "warmup_epochs": 0, "ema_decay": None, "amp": "off", "clip_grad": None}
    settings = config.distill.model_copy(update={**changes, "weights": "last", "smoothing": 0.0})
    teacher = build_teacher(config.teacher.untrained(), data.num_classes).freeze()
    train = data.train.take(torch.arange(min(steps * settings.batch_size, len(data.train))).numpy())
    few = data.val.take(torch.arange(min(16, len(data.val))).numpy())
    task = DistillTask(space, arch, data.num_classes, settings, config.plugins)
    return task, DistillInputs(train.portable(), few.portable(), few.portable(), teacher)


def by_cohort(task: DistillTask, inputs: DistillInputs, device: torch.device = CPU) -> tuple[float, float]:
    """Seconds of an epoch's steps, and the share of them that waited for images."""
    cohort = Cohort([task], inputs, WorkerContext(device))
    (metrics,) = cohort.run_epoch().values()
    return len(inputs.train) / metrics["images_per_s"], metrics["data_wait_share"]


def by_loop(task: DistillTask, inputs: DistillInputs, make: Callable[[nn.Module], Any], device: torch.device) -> float:
    """Seconds of an epoch's steps of a plain loop; `make` gives a student's loss, of images and labels."""
    settings = task.settings
    student = build_student(task.space, task.arch, task.num_classes, settings.seed).to(device).train()
    optimizer = torch.optim.AdamW(student.parameters(), settings.lr, weight_decay=settings.weight_decay)
    batches = ShuffledBatches(inputs.train.labels, settings.batch_size, settings.seed)
    transform = train_transform(settings.augment, task.space.image_size)
    inputs.teacher.to(device)
    loss_of, start = make(student), finished(device)
    for images, labels in train_loader(inputs.train, transform, batches):
        optimizer.zero_grad()
        loss_of(images.to(device), labels.to(device)).backward()
        optimizer.step()
    return finished(device) - start


def plainly(task: DistillTask, inputs: DistillInputs, device: torch.device = CPU) -> float:
    """With the loss written out."""
    temperature = task.settings.loss.temperature

    def make(student: nn.Module) -> Any:
        def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            logits = student(images)
            with torch.no_grad():
                taught = inputs.teacher(images)[0]
            ours, theirs = (F.log_softmax(each / temperature, 1) for each in (logits, taught))
            distilled = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2
            return F.cross_entropy(logits, labels) + distilled

        return loss

    return by_loop(task, inputs, make, device)


class LogitsAlone(nn.Module):
    """A teacher as timm's task calls it."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        return self.teacher(images)[0]  # type: ignore[no-any-return]


def by_timm(task: DistillTask, inputs: DistillInputs, device: torch.device = CPU) -> float:
    """With timm's task, which normalises images for the teacher again where the two differ: here they do not."""
    from timm.task import DistillationTeacher, LogitDistillationTask

    def make(student: Any) -> Any:
        student.pretrained_cfg = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}  # which timm's task asks for
        teacher = DistillationTeacher(
            LogitsAlone(inputs.teacher), num_classes=task.num_classes, in_chans=3, device=device
        )
        distilling = LogitDistillationTask(
            student,
            teacher,
            nn.CrossEntropyLoss(),
            distill_loss_weight=1.0,
            task_loss_weight=1.0,
            temperature=task.settings.loss.temperature,
            device=device,
            verbose=False,
        )
        return lambda images, labels: distilling(images, labels)["loss"]

    return by_loop(task, inputs, make, device)


def worker(rank: int, world_size: int, meeting: str, answers: Any, task: DistillTask, inputs: DistillInputs) -> None:
    """One of the processes that share each batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    context = WorkerContext(CPU, rank, world_size, nn.parallel.DistributedDataParallel)
    (metrics,) = Cohort([task], inputs, context).run_epoch().values()
    answers.put(len(inputs.train) / metrics["images_per_s"])
    torch.distributed.destroy_process_group()


def side_by_side(target: Callable[..., None], world_size: int, *args: Any) -> list[Any]:
    """What processes answer that meet by a file: a port that was free a moment ago may be another's by then."""
    context = get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        given = (world_size, f"file://{folder}/meeting", answers, *args)
        processes = [context.Process(target=target, args=(rank, *given)) for rank in range(world_size)]
        for process in processes:
            process.start()
        found = [answers.get(timeout=600) for _ in processes]
        for process in processes:
            process.join()
    return found


def by_workers(task: DistillTask, inputs: DistillInputs, world_size: int) -> float:
    """Seconds of an epoch's steps by processes of one thread each, the slowest's."""
    return max(side_by_side(worker, world_size, task, inputs))


def together(task: DistillTask, inputs: DistillInputs, size: int) -> dict[str, float]:
    """Seconds of an epoch a student, of `size` of one shape: each alone, and all as a cohort."""
    rng = random.Random(0)
    archs = {task.arch_id: task.arch}
    while len(archs) < size:
        arch = task.space.mutate(task.arch, rng)
        archs.setdefault(task.space.arch_id(arch), arch)
    tasks = [dataclasses.replace(task, arch=arch) for arch in archs.values()]
    alone = sum(by_cohort(each, inputs)[0] for each in tasks)
    cohort = Cohort(tasks, inputs, WorkerContext(CPU))
    metrics = next(iter(cohort.run_epoch().values()))
    return {"eight singly": alone / size, "cohort of 8": len(inputs.train) / metrics["images_per_s"] / size}


def short_epochs(task: DistillTask, inputs: DistillInputs, count: int) -> dict[str, float]:
    """Seconds of `count` epochs of two batches after a first one: here, and in a Ray Train job as it is heard of."""
    few = inputs.train.take(np.arange(2 * task.settings.batch_size)).portable()
    settings = task.settings.with_(epochs=1 + count)
    task, inputs = dataclasses.replace(task, settings=settings), dataclasses.replace(inputs, train=few)
    cohort = Cohort([task], inputs, WorkerContext(CPU))
    cohort.run_epoch()
    start = time.perf_counter()
    while not cohort.done:
        cohort.run_epoch()
    here, heard = time.perf_counter() - start, list[float]()

    def hear(name: str, metrics: Mapping[str, float]) -> None:
        heard.append(time.perf_counter())

    def end(name: str, trained: Trained) -> None:
        say(f"{name} ends at {trained.val_acc:.1f} %")

    with tempfile.TemporaryDirectory() as folder, connected("local"):
        share = allot(ClusterSettings(cpus_per_training_worker=1, loader_workers=0), 1)
        train_students({"job": task}, inputs, Path(folder), share, hear, end)
    return {"here": here, "as a job": heard[-1] - heard[0]}


def show(result: Mapping[str, Any]) -> None:
    rows = [[name, f"{rate:,.0f}"] for name, rate in result["images_per_s"].items()]
    print_table("one student, one thread in each process", ["", "images a second"], rows)
    rows = [[name, f"{seconds:.1f} s"] for name, seconds in result["short_epochs_s"].items()]
    print_table("short epochs, of two batches", ["", "took"], rows)
