"""What do a larger ViT's weights give a student? Accuracy at equal epochs, with and without them.

python benchmarks/init.py --config benchmarks/init.yaml --dataset parquet:PATH [--seeds 3]
python benchmarks/init.py --config benchmarks/init.yaml --dataset imagefolder:PATH --source DIR [--seeds 3]

The largest ViT of the config's space is trained on images of its own. Then a smaller one is trained on other images.
With every seed it begins once with what is drawn and once with the larger one's weights (`distill.init`), by one recipe
and for as many epochs. Who teaches, if anyone, is the config's matter. `--out` keeps the larger one for the next call.
With `--source`, a student's folder, that is the larger one, whatever it was trained on.

Ends with one JSON object: `larger` and `smaller` (architecture, parameters and training images; of the larger its test
accuracy), `epochs`, `random` and `selected` (test accuracy in percent by seed, of the weights that are kept),
`by_epoch` (mean validation accuracy of each), `differences` (selected less random, in points, by seed), `difference`
(their mean), and `start_acc` (test accuracy in percent of the selected weights before any training).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from tvt_ray.cli.main import run
from tvt_ray.cli.options import COMMON, Parser, add_options, config_of
from tvt_ray.data.splits import Dataset
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.initial import read_source
from tvt_ray.distillation.learner import DistillTask, WorkerContext
from tvt_ray.errors import UsageError
from tvt_ray.exports.card import StudentCard
from tvt_ray.exports.folder import ARCH_FILE, load_student, save_student
from tvt_ray.proxies.probe import select_balanced
from tvt_ray.runs.config import RunConfig
from tvt_ray.spaces import Arch
from tvt_ray.stages.initial import tell_of_init
from tvt_ray.stages.setup import load_data
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.teachers.teacher import Teacher

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALLER = 0.25  # of the larger one's parameters, about
NUM_VAL = 1000  # validation images at most, which are looked at after each epoch
NUM_DRAWN = 200  # of which the one nearest to that is taken


def init(args: argparse.Namespace) -> int:
    """Trains, prints and measures."""
    config = _as_it_trains(config_of(args))
    data = load_data(config)
    teacher = _teacher(config, data)
    apart = _split(data, 0 if args.source else args.large_images, args.num_images, config.seed)
    val = data.val.take(select_balanced(np.asarray(data.val.labels), min(NUM_VAL, len(data.val)), config.seed))
    large, small = (DistillInputs(part, val, data.test, teacher) for part in apart)
    place = args.source or train_larger(config, data, large, args)
    source = read_source(str(place)).of_classes(data.class_names)
    arch = smaller_arch(config, data.num_classes)
    tasks = [_task(config, data, arch, args.epochs, seed) for seed in range(args.seeds)]
    tell_of_init(source, tasks[:1])
    small = dataclasses.replace(small, init=source)
    begun = [_begun(task, place) for task in tasks]
    ways = {"random": [_train(task, small) for task in tasks], "selected": [_train(task, small) for task in begun]}
    larger = _larger(place, None if args.source else args.large_images)
    results = _results(config, data, arch, ways, args)
    print(json.dumps({"larger": larger, **results, "start_acc": _start_acc(begun[0], small)}))
    return 0


def _as_it_trains(config: RunConfig) -> RunConfig:
    """The config, its loss without what follows the teacher where `distill.guided` is never, as distil has it."""
    if config.distill.guided != "never":
        return config
    distill = config.distill.model_copy(update={"loss": config.distill.loss.alone()})
    return config.model_copy(update={"distill": distill})


def _teacher(config: RunConfig, data: Dataset) -> Teacher:
    """Untrained where nobody follows it."""
    if config.distill.loss.follow_teacher:
        return get_teacher(config.teacher, config.teacher_training, data)[0]
    return build_teacher(config.teacher.untrained(), data.num_classes).freeze()


def _split(data: Dataset, num_large: int, num_small: int, seed: int) -> list[Any]:
    """Training images, balanced by class: those of the larger one, and others of the smaller one."""
    if num_large + num_small > len(data.train):
        raise UsageError(
            f"--large-images and --num-images are {len(data.train):,} together at most; got {num_large + num_small:,}"
        )
    chosen = select_balanced(np.asarray(data.train.labels), num_large + num_small, seed)
    return [data.train.take(part) for part in (chosen[num_small:], chosen[:num_small])]


def smaller_arch(config: RunConfig, num_classes: int) -> Arch:
    """Of some that are drawn, that of about a quarter of the largest one's parameters."""
    space, rng = config.space, random.Random(config.seed)
    wanted = SMALLER * space.cost(space.largest_arch(num_classes), num_classes).params
    drawn = [space.sample(rng) for _ in range(NUM_DRAWN)]
    return min(drawn, key=lambda arch: abs(space.cost(arch, num_classes).params - wanted))


def train_larger(config: RunConfig, data: Dataset, inputs: DistillInputs, args: argparse.Namespace) -> Path:
    """The folder of the largest of the space, which is trained once into --out."""
    space, arch = config.space, config.space.largest_arch(data.num_classes)
    if not (args.out / ARCH_FILE).exists():
        task = _task(config, data, arch, args.large_epochs, config.distill.seed)
        state, test_acc, _ = _train(task, inputs)
        card = StudentCard(space, arch, data.class_names, {"test_acc": test_acc, "dataset": data.name})
        save_student(args.out, card, save(state), [])
    if load_student(args.out).card.arch != arch:
        raise UsageError(f"{args.out} holds another architecture than {space.arch_id(arch)}; choose another --out")
    return args.out  # type: ignore[no-any-return]


def _task(config: RunConfig, data: Dataset, arch: Arch, epochs: int, seed: int) -> DistillTask:
    settings = config.distill.model_copy(update={"epochs": epochs, "seed": seed})
    return DistillTask(config.space, arch, data.num_classes, settings, config.plugins)


def _begun(task: DistillTask, out: Path) -> DistillTask:
    """The same training from the larger one's weights."""
    return dataclasses.replace(task, settings=task.settings.model_copy(update={"init": str(out)}))


def _train(task: DistillTask, inputs: DistillInputs) -> tuple[Mapping[str, torch.Tensor], float, list[float]]:
    """The kept weights, their test accuracy, and validation accuracy by epoch."""
    cohort, start = Cohort([task], inputs, WorkerContext(DEVICE)), time.perf_counter()
    while not cohort.done:
        cohort.run_epoch()
    (learner,), (test_acc,) = cohort.learners.values(), cohort.test().values()
    curve = [epoch["val_acc"] for epoch in learner.history]
    begun = "selected" if task.settings.init else "drawn"
    took = f"{len(curve)} epochs ({time.perf_counter() - start:.0f} s)"
    print(f"{task.arch_id} seed {task.settings.seed}, {begun}: {test_acc:.2f} % after {took}", flush=True)
    return {key: value.cpu().contiguous() for key, value in learner.selection.state.items()}, test_acc, curve


def _start_acc(task: DistillTask, inputs: DistillInputs) -> float:
    cohort = Cohort([task], inputs, WorkerContext(DEVICE))
    (learner,) = cohort.learners.values()
    return round(cohort.accuracy(learner.student, inputs.test), 2)


def _larger(folder: Path, images: int | None) -> dict[str, Any]:
    """What is known of the larger one. `images`: it was trained on; None: on whatever."""
    card = load_student(folder).card
    params = card.space.cost(card.arch, len(card.class_names)).params
    return {
        "arch_id": card.arch_id,
        "params": params,
        "images": images,
        "test_acc": round(card.results["test_acc"], 2),
    }


def _results(
    config: RunConfig, data: Dataset, arch: Arch, ways: Mapping[str, list[Any]], args: argparse.Namespace
) -> dict[str, Any]:
    space = config.space
    accs = {name: [round(acc, 2) for _, acc, _ in trained] for name, trained in ways.items()}
    differences = [round(b - a, 2) for a, b in zip(accs["random"], accs["selected"], strict=True)]
    means = {name: np.mean([curve for _, _, curve in trained], axis=0) for name, trained in ways.items()}
    return {
        "smaller": {
            "arch_id": space.arch_id(arch),
            "params": space.cost(arch, data.num_classes).params,
            "images": args.num_images,
        },
        "epochs": args.epochs,
        **accs,
        "by_epoch": {name: [round(float(value), 1) for value in mean] for name, mean in means.items()},
        "differences": differences,
        "difference": round(float(np.mean(differences)), 2),
    }


def main() -> int:
    """The command."""
    parser = Parser(prog="benchmarks/init.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add_options(parser, "config", *COMMON)
    parser.add_argument("--num-images", type=int, default=2000, metavar="N", help="training images of the smaller one")
    parser.add_argument("--large-images", type=int, default=8000, metavar="N", help="of the larger one, and no others")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="of the smaller one")
    parser.add_argument("--large-epochs", type=int, default=15, metavar="N", help="of the larger one")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each way")
    parser.add_argument("--source", type=Path, metavar="DIR", help="a student that is the larger one")
    parser.add_argument("--out", type=Path, default=Path("runs/init"), metavar="DIR", help="keeps the larger one")
    parser.set_defaults(command=init)
    return run(parser)


if __name__ == "__main__":
    sys.exit(main())
