"""Whom does refine choose, for how much? Among students of one size that were all trained to the end.

python benchmarks/refine.py --config benchmarks/refine.yaml --dataset parquet:PATH --teacher-weights FILE

Students of a band of parameters are read by every proxy and trained to the end (`tvt search` and `tvt refine`, so that
an interrupted call goes on where it was). Then ways to choose are replayed on what was recorded (replays.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from commands import with_part
from replays import Truth, judge

from tvt_ray.cli.main import run
from tvt_ray.cli.options import COMMON, Parser, add_options, config_of
from tvt_ray.cli.output import print_table
from tvt_ray.cluster.board import STATE_FILE
from tvt_ray.cluster.cohort_worker import state_name
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask, WorkerContext
from tvt_ray.progress import Meter
from tvt_ray.proxies import PROXIES
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.stages.refine import run_refine
from tvt_ray.stages.search import run_search
from tvt_ray.stages.setup import load_data
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.training.states import from_bytes

SIZES = {"train": {"train": 2500, "val": 1500}, "test": {"test": 3000}}  # images of each split, by file
SAMPLED_PER_STUDENT = 3  # architectures read for each student, so that there are as many shapes


def refine(args: argparse.Namespace) -> int:
    config = with_part(config_of(args), args.out, SIZES)
    results = {}
    for text in args.bands:
        truth = make_truth(config, text, args)
        results[text] = judge(truth, args.repetitions)
        _print(text, truth, results[text])
    print(json.dumps(results))
    return 0


def make_truth(config: RunConfig, band: str, args: argparse.Namespace) -> Truth:
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
    config = load_config(None, [config.model_dump(mode="json"), layers])
    folder = RunFolder(args.out / band)
    run_search(config, folder.path, resume=folder.config_file.exists())
    run_refine(config, folder.path, resume=folder.rounds_file.exists())
    prior = folder.ranking(config.score)
    measurements = tuple(folder.measurements().read())
    trained = {each.arch_id for each in measurements}
    prior = Ranking(prior.by, tuple(each for each in prior.scored if each.row.arch_id in trained))
    test = test_accuracies(config, folder, [each.row.arch_id for each in prior.scored])
    return Truth(folder, config, prior, measurements, np.array([test[each.row.arch_id] for each in prior.scored]))


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
            cohort.load_state_dict({arch_id: from_bytes(state, "cpu")})
            known[arch_id] = cohort.test()[arch_id]
            meter.advance(1)
    write_atomically(file, json.dumps(known, indent=1).encode())
    return known


def _print(band: str, truth: Truth, result: Mapping[str, Any]) -> None:
    def text(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    rows = [
        [name, text(way["tau"], ".2f"), text(way["regret"], ".2f"), text(way["epochs"], ".0%")]
        for name, way in result["ways"].items()
    ]
    title = (
        f"{band} parameters: {result['students']} students end at {truth.test.min():.1f} to {result['best']:.1f} % "
        f"(median {result['median']:.1f}); another seed changes {result['noise']:.2f} points"
    )
    print_table(title, ["ranks by", "tau", "regret", "epochs"], rows)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="refine.py", description=__doc__)
    add_options(parser, "config", *COMMON)
    parser.add_argument("--bands", nargs="+", default=["90k-110k", "280k-320k"], metavar="LOW-HIGH")
    parser.add_argument("--num-students", type=int, default=40, metavar="N", help="of each band")
    parser.add_argument("--repeats", type=int, default=8, metavar="N", help="of them, trained with a second seed too")
    parser.add_argument("--cohort-size", type=int, default=10, metavar="N", help="students that share batches")
    parser.add_argument("--repetitions", type=int, default=50, metavar="N", help="of each replay")
    parser.add_argument("--out", type=Path, default=Path("runs/refine"), metavar="DIR")
    parser.set_defaults(command=refine)
    return parser


if __name__ == "__main__":
    sys.exit(run(_parser()))
