"""Whom does refine choose, for how much? Among students of one size that were all trained to the end.

python -m benchmarks refine --config benchmarks/refine.yaml --dataset parquet:PATH --teacher-weights FILE

Students of a band of parameters are read by every proxy and trained to the end (`tvt search` and `tvt refine`, so that
an interrupted call goes on where it was). Then ways to choose are replayed on what was recorded (replays.py). --trained
names a folder of such trainings that another commit made. The result, by band: Kendall's tau, regret and epochs of
every way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tvt_ray
from benchmarks.replays import Truth, judge
from benchmarks.runner import CONFIG, Record, write_part
from tvt_ray.cli.options import add_options, config_of
from tvt_ray.cli.output import print_table
from tvt_ray.cluster.board import STATE_FILE
from tvt_ray.cluster.cohorts import state_name
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.progress import Meter
from tvt_ray.proxies import PROXIES
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import load_data
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.training.learner import WorkerContext, from_bytes

SIZES = {"train": {"train": 2500, "val": 1500}, "test": {"test": 3000}}  # images of each split, by file
SAMPLED_PER_STUDENT = 3  # architectures read for each student, so that there are as many shapes


def add(parser: argparse.ArgumentParser) -> None:
    add_options(parser, *CONFIG)
    parser.add_argument("--bands", nargs="+", default=["90k-110k", "280k-320k"], metavar="LOW-HIGH")
    parser.add_argument("--num-students", type=int, default=40, metavar="N", help="of each band")
    parser.add_argument("--repeats", type=int, default=8, metavar="N", help="of them, trained with a second seed too")
    parser.add_argument("--cohort-size", type=int, default=10, metavar="N", help="students that share batches")
    parser.add_argument("--repetitions", type=int, default=50, metavar="N", help="of each replay")
    parser.add_argument("--trained", type=Path, metavar="DIR", help="trainings to go on with (default: new ones)")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    folder, config = (args.trained or record.folder).absolute(), config_of(args)
    part = write_part(config.data.name, folder / "data", SIZES, config.seed)
    config = config.with_(data={"name": part})
    return {"bands": {band: record.once(band, judge_band, config, band, folder, args) for band in args.bands}}


def judge_band(config: RunConfig, band: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    return judge(make_truth(config, band, folder, args), args.repetitions)


def make_truth(config: RunConfig, band: str, folder: Path, args: argparse.Namespace) -> Truth:
    """Reads and trains what is left to read and to train."""
    low, high = band.split("-")
    layers = {
        "budget": {"min_params": low, "max_params": high},
        "score": {"proxies": list(PROXIES)},
        "search": {"num_samples": SAMPLED_PER_STUDENT * args.num_students, "searcher": "random"},
        "refine": {
            "num_students": args.num_students,
            "rounds": 1,
            "rungs": [config.distill.epochs],
            "repeats": args.repeats,
            "cohort_size": args.cohort_size,
        },
    }
    config = config.with_(layers)
    run = RunFolder(folder / band)
    tvt_ray.search(config, run_dir=run.path, resume=run.config_file.exists())
    tvt_ray.refine(run.path, settings=config, resume=run.rounds_file.exists())
    prior = run.ranking(config.score)
    measurements = tuple(run.measurements().read())
    trained = {each.arch_id for each in measurements}
    prior = Ranking(prior.by, tuple(each for each in prior.scored if each.row.arch_id in trained))
    test = test_accuracies(config, run, [each.row.arch_id for each in prior.scored])
    return Truth(run, config, prior, measurements, np.array([test[each.row.arch_id] for each in prior.scored]))


def test_accuracies(config: RunConfig, folder: RunFolder, ids: Sequence[str]) -> dict[str, float]:
    """At the end of each training, in percent; kept in the folder."""
    file = folder.path / "test.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    data = load_data(config)
    teacher = get_teacher(config.teacher, config.teacher_training, data)[0]
    rows = {row.arch_id: row for row in folder.rows().read()}
    inputs = DistillInputs(data.train, data.val, data.test, teacher)
    with Meter("testing", len(ids), "students", len(known)) as meter:
        for arch_id in ids:
            if arch_id in known:
                continue
            space = config.space
            task = DistillTask(space, space.from_json(rows[arch_id].arch), data.num_classes, config.distill)
            cohort = Cohort([task], inputs, WorkerContext(torch.device("cpu")))
            state = (folder.refine_folder / state_name(task) / STATE_FILE).read_bytes()
            cohort.load_state_dict({arch_id: from_bytes(state)})
            known[arch_id] = cohort.test()[arch_id]
            meter.advance(1)
    write_atomically(file, json.dumps(known, indent=1).encode())
    return known


def show(result: Mapping[str, Any]) -> None:
    def text(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for band, found in result["bands"].items():
        rows = [
            [name, text(way["tau"], ".2f"), text(way["regret"], ".2f"), text(way["epochs"], ".0%")]
            for name, way in found["ways"].items()
        ]
        title = (
            f"{band} parameters: {found['students']} students end at {found['worst']:.1f} to {found['best']:.1f} % "
            f"(median {found['median']:.1f}); another seed changes {found['noise']:.2f} points"
        )
        print_table(title, ["ranks by", "tau", "regret", "epochs"], rows)
