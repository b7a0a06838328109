"""Makes ground truth of the space that `tvt fit` searches: students on stages, each trained as a fit trains its own.

python -m benchmarks students --fit RUN --num-archs 24 --file benchmarks/students_signs.jsonl --column signs

RUN is what `tvt fit DATASET --out RUN` left: its teacher, augmentation, loss and number of epochs are those of all.
Students begin with any of the stages that a fit may choose. Beside them are rivals of no search: for each of these
stages a student without blocks, the middle of the space and the largest, and some students with a second seed.

Interrupted, it goes on where it was when it is called again. FILE has the students, as `tvt rank` reads them (with
`--config` FILE.yaml, whose space holds them all); FILE.json has all trainings with their roles, seeds and epochs. They
are written as trainings end, and what is in them is not trained again: `--config FILE.yaml --dataset PATH` in the place
of `--fit` goes on elsewhere, or adds students.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.ground_truth import count, ground_truth_line, in_processes, of_length, train_cohort
from benchmarks.runner import Record
from tvt_ray.cli.options import add_options, config_of
from tvt_ray.cli.output import print_table
from tvt_ray.distillation.cohort import DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.planning.inherited import stems_of
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.storage.locations import as_location, write_atomically
from tvt_ray.training.pace import device_here
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.short import middle_arch
from tvt_ray.verbs.trainings import Teaching
from tvt_ray.vits import Arch, Space

BLOCKLESS, MIDDLE, LARGEST = "without blocks", "middle", "largest"


@dataclass(frozen=True)
class Student:
    """A training, and whose it is."""

    role: str  # empty: one of the sample
    task: DistillTask

    @property
    def name(self) -> str:
        return self.task.name


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fit", metavar="RUN", help="the folder of a fit")
    add_options(parser, "config", "dataset", "set")
    parser.add_argument("--num-archs", type=int, default=24, metavar="N")
    parser.add_argument("--again", type=int, default=4, metavar="N", help="of these, with a second seed (default: 4)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each (default: those of the fit)")
    parser.add_argument("--cohort-size", type=int, default=4, metavar="N", help="students that share batches")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="cohorts at a time")
    parser.add_argument("--column", required=True, metavar="NAME", help="accuracies go into NAME_kd_acc")
    parser.add_argument("--file", type=Path, required=True, metavar="FILE", help="of JSON lines")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    if (args.fit is None) == (args.config is None):
        raise UsageError("--fit or --config says how students are trained: one of them")
    config = config_of(args) if args.fit is None else wide(RunFolder(as_location(args.fit)).config(), args.epochs)
    file, column = args.file.absolute(), f"{args.column}_kd_acc"
    with Session.open(config, record.folder / "run") as session:
        students = chosen(session, args.num_archs, args.again)
        known = trained_before(file, config)
        cohorts = cohorts_of([each for each in students if each.name not in known], args.cohort_size)
        left = {part: cohort for part, cohort in cohorts.items() if record.find(part) is None}
        if left:
            inputs, config = Teaching(session).inputs(), session.config
            calls = {
                part: functools.partial(_train, cohort, inputs, record.folder / f"{part}.pt")
                for part, cohort in left.items()
            }
            total = sum(map(len, left.values())) * config.distill.epochs * len(inputs.train)

            def write() -> None:
                write_trainings(file, column, students, _known(known, cohorts, record), config)

            in_processes(calls, total, args.workers, record, write)
    trainings = write_trainings(file, column, students, _known(known, cohorts, record), config)
    return {"file": str(file), "column": column, "trainings": trainings}


def _known(known: Mapping[str, float], cohorts: Iterable[str], record: Record) -> dict[str, float]:
    """Accuracies by the names of trainings: those that are known, and those of cohorts that are done."""
    done = [record.find(part) or {} for part in cohorts]
    return {**known, **{name: acc for part in done for name, acc in part.items()}}


def write_trainings(
    file: Path, column: str, students: Sequence[Student], known: Mapping[str, float], config: RunConfig
) -> list[dict[str, Any]]:
    """FILE and those beside it, of all trainings that are done by now; the trainings."""
    trainings = [
        {
            **ground_truth_line(each.task, column, known[each.name]),
            "name": each.name,
            "role": each.role,
            "seed": each.task.settings.seed,
            "epochs": each.task.settings.epochs,
        }
        for each in students
        if each.name in known
    ]
    first = students[0].task.settings.seed
    sample = [each for each in trainings if not each["role"] and each["seed"] == first]
    write_atomically(file, "".join(f"{json.dumps(_plain(line))}\n" for line in sample).encode())
    write_atomically(file.with_suffix(".json"), json.dumps(trainings, indent=1).encode())
    write_atomically(file.with_suffix(".yaml"), recipe_text(config).encode())
    return trainings


def recipe_text(config: RunConfig) -> str:
    """What trains students so, as a config that names no place: `--dataset` says where the images are."""
    values = config.model_dump(
        mode="json", include={"seed", "space", "budget", "teacher", "teacher_training", "distill"}
    )
    how = config.data.model_dump(mode="json", include={"val_fraction", "test_fraction", "split_seed"})
    return yaml.safe_dump({**values, "data": how}, sort_keys=False)


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("name", "role", "seed", "epochs")}


def trained_before(file: Path, config: RunConfig) -> dict[str, float]:
    """Accuracies by the names of trainings, where FILE.json has some. Raises UsageError where by another config."""
    trainings, settings = file.with_suffix(".json"), file.with_suffix(".yaml")
    if not trainings.is_file():
        return {}
    before = load_config(settings)
    if any(getattr(before, part) != getattr(config, part) for part in ("space", "budget", "distill", "teacher")):
        raise UsageError(f"{trainings} has students that were trained otherwise: go on with --config {settings}")
    found = json.loads(trainings.read_text())
    return {each["name"]: next(value for key, value in each.items() if key.endswith("_acc")) for each in found}


def wide(config: RunConfig, epochs: int | None) -> RunConfig:
    """A fit's config with all the stages that it may have chosen from, and the epochs that were asked for."""
    backbone = getattr(config.space, "backbone", None)
    if backbone is None or config.budget.max_params is None:
        raise UsageError("--fit is the folder of a fit whose students begin with stages, within a number of parameters")
    recipe = config.distill if epochs is None else of_length(config.distill, epochs)
    return config.with_(space={"stem": stems_of(backbone, config.budget.max_params)}, distill=recipe.model_dump())


def chosen(session: Session, num_archs: int, num_again: int) -> list[Student]:
    """A sample of the space within the budget, the rivals, and some of the sample once more; each once."""
    teaching, space, limits = Teaching(session), session.config.space, session.limits
    inside = [arch for arch in space.enumerate() if limits.admit(arch)]
    if num_archs > len(inside) or num_again > num_archs:
        raise UsageError(f"--num-archs is at most {len(inside):,} here, and --again at most --num-archs")
    settings, num_classes = teaching.settings, session.data.num_classes

    def student(role: str, of: Space, arch: Arch, seed: int) -> Student:
        label = ".".join(filter(None, [role.replace(" ", "-"), of.arch_id(arch), f"s{seed}"]))
        own = settings.with_(seed=seed)
        return Student(role, DistillTask(of, arch, num_classes, own, session.config.plugins, label))

    order = inside.copy()
    random.Random("students/0").shuffle(order)
    sample = order[:num_archs]  # of which a smaller sample is a part
    found = [student("", space, arch, settings.seed) for arch in sample]
    found += [student(BLOCKLESS, *_without_blocks(space, stem), settings.seed) for stem in space.stem]  # type: ignore[attr-defined]
    params = {space.arch_id(arch): space.cost(arch, num_classes).params for arch in inside}
    largest = max(inside, key=lambda arch: (params[space.arch_id(arch)], space.arch_id(arch)))
    found += [
        student(role, space, arch, settings.seed) for role, arch in ((MIDDLE, middle_arch(session)), (LARGEST, largest))
    ]
    return found + [student("", space, arch, settings.seed + 1) for arch in sample[:num_again]]


def _without_blocks(space: Space, stem: str) -> tuple[Space, Arch]:
    changes = {"depth": [0], "stem": [stem], "embed_dim": [max(space.embed_dim)], "pool": ["mean"]}  # type: ignore[attr-defined]
    without = space.with_(changes)
    return without, next(without.enumerate())


def cohorts_of(students: Sequence[Student], size: int) -> dict[str, list[DistillTask]]:
    """By part of the record, which is called by who is in it: students of one seed that share batches."""
    found: dict[str, list[DistillTask]] = {}
    for seed in sorted({each.task.settings.seed for each in students}):
        tasks = [each.task for each in students if each.task.settings.seed == seed]
        for start in range(0, len(tasks), size):
            cohort = tasks[start : start + size]
            names = hashlib.sha256("\n".join(task.name for task in cohort).encode()).hexdigest()
            found[f"seed{seed}-{names[:8]}"] = cohort
    return found


def _train(tasks: Sequence[DistillTask], inputs: DistillInputs, state_file: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    return train_cohort(tasks, inputs, state_file, device_here(), count).test()


def show(result: Mapping[str, Any]) -> None:
    column = result["column"]
    rows = [
        [each["role"] or "of the sample", f"{each['params']:,}", str(each["seed"]), f"{each[column]:.2f}"]
        for each in sorted(result["trainings"], key=lambda each: -each[column])
    ]
    print_table(f"test accuracy, percent; {result['file']}", ["student", "parameters", "seed", "accuracy"], rows)
