"""What does a student gain by following its teacher? Accuracy by epoch: alone, guided, and guided within bounds.

python benchmarks/guidance.py --dataset parquet:PATH --teacher-weights FILE [--epochs 30] [--seeds 1] [--out DIR]

Students of `--archs` (a file with one architecture of the config's space a line) learn from a part of the dataset by
one recipe, that of headline.yaml (--config), in several ways: from labels alone, by Locality Guidance with its
published weight, by guidance that is bounded by the cross-entropy (`distill.loss.guidance_limit`), and by the teacher's
logits. Students of a way learn side by side. What a way and a seed gave is kept in --out, so that a call goes on where
it was.

Ends with one JSON object: by way and architecture, test accuracy in percent by seed, and the mean validation accuracy
by epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from commands import with_part

from tvt_ray.cli.main import run
from tvt_ray.cli.options import COMMON, Parser, add_options, config_of
from tvt_ray.cli.output import print_table
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask, WorkerContext
from tvt_ray.progress import Meter
from tvt_ray.stages.setup import load_data
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.provide import get_teacher

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# by name, what of the loss is another than the config's
WAYS: Mapping[str, Mapping[str, Any]] = {
    "alone": {"weights": {"cross_entropy": 1.0}},
    "guided": {"weights": {"cross_entropy": 1.0, "guidance": 2.5}, "guidance_limit": None},
    "bounded": {"weights": {"cross_entropy": 1.0, "guidance": 2.5}, "guidance_limit": 1.0},
    "logits": {"weights": {"cross_entropy": 1.0, "logits": 1.0}},
}
Curves = dict[str, dict[str, Any]]  # by arch_id: `test`, and `val` by epoch


def guidance(args: argparse.Namespace) -> int:
    """Trains what is left to train, and prints."""
    sizes = {"train": {"train": args.num_train}, "test": {"test": args.num_test}}
    config = with_part(config_of(args), args.out, sizes)
    data = load_data(config)
    teacher = get_teacher(config.teacher, config.teacher_training, data)[0]
    inputs = DistillInputs(data.train, data.val, data.test, teacher)
    archs = [config.space.from_json(json.loads(line)) for line in args.archs.read_text().splitlines()]
    found: dict[str, list[Curves]] = {}
    for way in args.ways:
        loss = config.distill.loss.model_copy(update=dict(WAYS[way]))
        settings = config.distill.model_copy(update={"epochs": args.epochs, "loss": loss})
        tasks = [DistillTask(config.space, arch, data.num_classes, settings, config.plugins) for arch in archs]
        found[way] = [_trained(tasks, seed, inputs, args.out / f"{way}.seed{seed}.json") for seed in range(args.seeds)]
    results = {way: _together(curves) for way, curves in found.items()}
    _print(results, args.epochs)
    print(json.dumps(results))
    return 0


def _trained(tasks: Sequence[DistillTask], seed: int, inputs: DistillInputs, file: Path) -> Curves:
    """What the file holds, or what the trainings give."""
    if file.exists():
        kept: Curves = json.loads(file.read_text())
        return kept
    seeded = [dataclasses.replace(task, settings=task.settings.model_copy(update={"seed": seed})) for task in tasks]
    cohort = Cohort(seeded, inputs, WorkerContext(DEVICE))
    with Meter(file.stem, seeded[0].settings.epochs, "epochs") as meter:
        while not cohort.done:
            cohort.run_epoch()
            meter.advance(1)
    test = cohort.test()
    curves = {
        name: {"test": test[name], "val": [epoch["val_acc"] for epoch in learner.history]}
        for name, learner in cohort.learners.items()
    }
    write_atomically(file, json.dumps(curves).encode())
    return curves


def _together(curves: Sequence[Curves]) -> Curves:
    """Test accuracies by seed, validation accuracies as the mean over seeds."""
    return {
        name: {
            "test": [round(each[name]["test"], 2) for each in curves],
            "val": [
                round(sum(values) / len(values), 2)
                for values in zip(*(each[name]["val"] for each in curves), strict=True)
            ],
        }
        for name in curves[0]
    }


def _print(results: Mapping[str, Curves], epochs: int) -> None:
    shown = sorted({epochs // 6, epochs // 2, epochs - 1})
    rows = [
        [
            name,
            way,
            *(f"{entry['val'][epoch]:.1f}" for epoch in shown),
            ", ".join(f"{acc:.1f}" for acc in entry["test"]),
        ]
        for way, curves in results.items()
        for name, entry in curves.items()
    ]
    columns = ["student", "learns", *(f"after {epoch + 1}" for epoch in shown), "test %, by seed"]
    print_table(f"validation accuracy in percent, by epoch of {epochs}", columns, sorted(rows))


def main() -> int:
    """The command."""
    parser = Parser(prog="benchmarks/guidance.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add_options(parser, "config", *COMMON)
    here = Path(__file__)
    parser.set_defaults(config=here.with_name("headline.yaml"), command=guidance)
    parser.add_argument("--archs", type=Path, default=here.with_suffix(".jsonl"), metavar="FILE")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["alone", "bounded", "guided"], metavar="NAME")
    parser.add_argument("--num-train", type=int, default=5000, metavar="N", help="validation is carved from them")
    parser.add_argument("--num-test", type=int, default=2000, metavar="N")
    parser.add_argument("--epochs", type=int, default=30, metavar="N")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("runs/guidance"), metavar="DIR")
    return run(parser)


if __name__ == "__main__":
    sys.exit(main())
