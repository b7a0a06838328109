"""Does the order of deep and wide students turn with the length of training, and does a part of a training foretell it?

python -m benchmarks lengths --config benchmarks/lengths.yaml --dataset parquet:PATH --teacher-weights FILE

Students of one size (the budget of the config), one of each depth, are trained to the end in 10, 40 and 160 epochs,
each with two seeds. The result, by length: test accuracies; `points_per_doubling`, what twice the depth is worth
there, with a 95 % interval; Kendall's tau with depth, and with the order that the longest training gives; and
`parts`: tau between validation after a part of the epochs and the test accuracy at the end of the same training.
--num-images takes part of a Parquet dataset; without it the dataset is used as it is. Interrupted, it goes on where
it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.ground_truth import count, in_processes, of_length, train_cohort
from benchmarks.runner import CONFIG, Record, write_part
from tvt_ray.cli.options import add_options, config_of
from tvt_ray.cli.output import print_table
from tvt_ray.distillation.cohort import DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.judging.agreement import kendall_tau
from tvt_ray.refining.halving import SHARES
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import checked_limits, load_data
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.training.pace import device_here
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Limits

NUM_OTHERS = {"val": 1000, "test": 3000}  # images beside those for training, where a part is taken
PARTS = (0.1, *SHARES)  # of the epochs; refine's rungs among them


def add(parser: argparse.ArgumentParser) -> None:
    add_options(parser, *CONFIG)
    parser.add_argument("--num-images", dest="train_images", type=int, metavar="N", help="for training, of a Parquet")
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 40, 160], metavar="EPOCHS")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="trainings of each student and length")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="cohorts at a time")
    parser.add_argument("--file", type=Path, metavar="FILE", help="of all trainings (default: beside the result)")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    config, file = config_of(args), (args.file or record.folder / "lengths.json").absolute()
    if args.train_images is not None:
        sizes = {"train": {"train": args.train_images, "val": NUM_OTHERS["val"]}, "test": {"test": NUM_OTHERS["test"]}}
        config = config.with_(data={"name": write_part(config.data.name, record.folder / "data", sizes, config.seed)})
    config = config.with_(distill={"learn_from": "train"})  # so that something validates
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    archs = one_of_each_depth(checked_limits(config, data.num_classes, None))
    calls, inputs = {}, DistillInputs(data.train, data.val, data.test, teacher)
    trainings = {f"{epochs}-{seed}": (epochs, seed) for epochs in sorted(args.lengths) for seed in range(args.seeds)}
    for part, (epochs, seed) in reversed(trainings.items()):  # the longest first, so that no process waits for them
        if record.find(part) is None:
            settings = of_length(config.distill, epochs).with_(seed=config.distill.seed + seed)
            tasks = [DistillTask(config.space, arch, data.num_classes, settings, config.plugins) for arch in archs]
            calls[part] = functools.partial(_train, tasks, inputs, record.folder / f"{part}.pt")
    total = sum(trainings[part][0] for part in calls) * len(archs) * len(data.train)
    if calls:
        in_processes(calls, total, args.workers, record)
    found = [
        {**each, **described(config, archs[number], data.num_classes), "epochs": epochs, "seed": seed}
        for part, (epochs, seed) in trainings.items()
        for number, each in enumerate(record.find(part))
    ]
    write_atomically(file, json.dumps(found, indent=1).encode())
    return {"file": str(file), "images": len(data.train), "lengths": judge(found)}


def one_of_each_depth(limits: Limits) -> list[Arch]:
    """Of each depth, the architecture within the budget that is nearest to its middle, shallow first.

    Raises UsageError where fewer than three depths have one.
    """
    low, high = limits.budget.min_params, limits.budget.max_params
    if low is None or high is None:
        raise UsageError("students of one size are compared: the config's budget has min_params and max_params")
    nearest: dict[int, tuple[float, Arch]] = {}
    for arch in limits.space.enumerate():
        if limits.admit(arch):
            params = limits.space.cost(arch, limits.num_classes).params
            off = abs(np.log(params / np.sqrt(low * high)))
            if off < nearest.get(limits.space.num_blocks(arch), (np.inf,))[0]:
                nearest[limits.space.num_blocks(arch)] = off, arch
    if len(nearest) < 3:
        raise UsageError(f"the budget holds students of {len(nearest)} depths; at least 3 are compared")
    return [arch for _, (_, arch) in sorted(nearest.items(), key=lambda pair: pair[0])]


def described(config: RunConfig, arch: Arch, num_classes: int) -> dict[str, Any]:
    space = config.space
    return {
        "arch": space.to_json(arch),
        "depth": space.num_blocks(arch),
        "params": space.cost(arch, num_classes).params,
    }


def _train(tasks: Sequence[DistillTask], inputs: DistillInputs, state_file: Path) -> list[dict[str, Any]]:
    """Of each: test accuracy at the end, and validation after each epoch, in percent."""
    torch.set_num_threads(1)
    cohort = train_cohort(tasks, inputs, state_file, device_here(), count)
    tested = cohort.test()
    return [
        {"test_acc": tested[task.name], "val_acc": [each["val_acc"] for each in cohort.learners[task.name].history]}
        for task in tasks
    ]


def judge(trainings: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By number of epochs; accuracies are means over seeds, and intervals are of the line through the students."""
    lengths = sorted({each["epochs"] for each in trainings})
    ends = {length: _by_depth(trainings, length, lambda each: each["test_acc"]) for length in lengths}
    return {str(length): _judge_length(trainings, length, ends) for length in lengths}


def _judge_length(
    trainings: Sequence[Mapping[str, Any]], length: int, ends: Mapping[int, Mapping[int, float]]
) -> dict[str, Any]:
    depths, accuracy = (np.array(list(values), float) for values in (ends[length], ends[length].values()))
    line = stats.linregress(np.log2(depths), accuracy)
    half = float(stats.t.ppf(0.975, len(depths) - 2) * line.stderr)
    parts = {}
    for part in PARTS:
        epoch = max(1, int(part * length))
        early = _by_depth(trainings, length, lambda each, epoch=epoch: each["val_acc"][epoch - 1])  # type: ignore[misc]
        parts[f"{part:.2f}"] = kendall_tau(_values(early), accuracy)
    return {
        "test_acc": {str(depth): value for depth, value in ends[length].items()},
        "points_per_doubling": float(line.slope),
        "points_per_doubling_ci95": [float(line.slope) - half, float(line.slope) + half],
        "tau_with_depth": kendall_tau(depths, accuracy),
        "tau_with_longest": kendall_tau(accuracy, _values(ends[max(ends)])),
        "parts": parts,
    }


def _by_depth(trainings: Sequence[Mapping[str, Any]], length: int, value: Any) -> dict[int, float]:
    """Means over seeds of what `value` gives of a training, shallow first."""
    found: dict[int, list[float]] = {}
    for each in trainings:
        if each["epochs"] == length:
            found.setdefault(each["depth"], []).append(value(each))
    return {depth: float(np.mean(values)) for depth, values in sorted(found.items())}


def _values(by_depth: Mapping[int, float]) -> NDArray[np.float64]:
    return np.array(list(by_depth.values()))


def show(result: Mapping[str, Any]) -> None:
    def text(tau: float | None) -> str:
        return "" if tau is None else f"{tau:.2f}"

    lengths = result["lengths"]
    depths = next(iter(lengths.values()))["test_acc"]
    rows = []
    for length, found in lengths.items():
        low, high = found["points_per_doubling_ci95"]
        worth = f"{found['points_per_doubling']:+.1f} ({low:+.1f} to {high:+.1f})"
        taus = [text(found["tau_with_longest"]), *map(text, found["parts"].values())]
        rows.append([length, *(f"{value:.1f}" for value in found["test_acc"].values()), worth, *taus])
    titles = ["epochs", *(f"depth {depth}" for depth in depths), "a doubling of depth", "tau with the longest"]
    titles += [f"after {float(part):.0%}" for part in next(iter(lengths.values()))["parts"]]
    print_table("test accuracy, percent; tau of validation after a part with the end", titles, rows)
