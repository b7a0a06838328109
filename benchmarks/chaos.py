"""Searches that are killed: is anything lost, repeated or wrong?

python -m benchmarks chaos [--runs 20] [--num-samples 300] [--seed 0]

A Ray cluster of several raylets on this machine: a head that scores nothing and two nodes. Each run is a search whose
node, worker or driver (in turn) is killed with SIGKILL at a random moment while it scores. After the driver it is
resumed; after a node, another one joins. At its end every row is compared with what was on disk just before the kill
and with the same search undisturbed and without Ray. The result: `runs`; `rows_lost`, rows that were on disk before a
kill and are not at the end, and rows that are missing from the set; `duplicates`, architectures on disk more than once;
`wrong_scores`, rows whose readings, or whose scores by the run's own calibration, differ from the undisturbed ones; and
`added_nodes_used`, how many of the nodes that joined after a kill scored something. Exit code 1 where anything is lost,
repeated or wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.machines import SETTINGS, Machines, finish, rows_on_disk, wait_for_rows
from benchmarks.runner import Record
from tvt_ray.cli.output import print_table
from tvt_ray.progress import say
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import load_data, make_task
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import Calibration, calibration_archs
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.recorder import Sampler
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.vits.budget import Limits

KINDS = ("node", "worker", "driver")
HARM = ("rows_lost", "duplicates", "wrong_scores")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=20, metavar="N")
    parser.add_argument("--num-samples", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-checked", type=int, metavar="N", help="rows whose scores are compared (default: all)")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    return dict(
        record.once("tally", chaos, args.runs, args.num_samples, args.seed, args.num_checked or args.num_samples)
    )


@dataclass
class Tally:
    """What went wrong over all runs."""

    runs: int = 0
    rows_lost: int = 0
    duplicates: int = 0
    wrong_scores: int = 0
    added_nodes_used: int = 0


@dataclass(frozen=True)
class Undisturbed:
    """What a random search has that nobody disturbs: each row as read here, one after the other; None: not checked."""

    score: str
    calibration: Calibration
    rows: Mapping[str, Row | None]

    def agrees(self, row: Row, calibration: Calibration) -> bool:
        """In readings, and in the score made of them by the disturbed run's own calibration."""
        ours = self.rows.get(row.arch_id)
        if ours is None:
            return True
        scores = calibration.score(self.score, row), self.calibration.score(self.score, ours)
        return row.readings == ours.readings and scores[0] == scores[1]


def undisturbed(config: RunConfig, num_checked: int) -> Undisturbed:
    """With the first `num_checked` rows, read as a worker of the search does."""
    torch.set_num_threads(1)
    data = load_data(config)
    reader = Reader(make_task(config, data, get_teacher(config.teacher, config.teacher_training, data)[0]))
    task = reader.task
    algorithm = build_algorithm(config.search, task.space, config.seed)
    limits = Limits(task.space, config.budget, task.num_classes)
    sampler = Sampler(algorithm, limits, config.seed)
    archs = [arch for arch in (sampler.ask() for _ in range(config.search.num_samples)) if arch is not None]
    rows: dict[str, Row | None] = {task.space.arch_id(arch): None for arch in archs}
    rows |= {row.arch_id: row for row in reader.read_all(archs[:num_checked])}
    sample = reader.read_all(calibration_archs(limits, config.seed, config.score.calibration_samples))
    return Undisturbed(config.score.name, Calibration.from_rows(sample), rows)


def disturb(
    kind: str, machines: Machines, config: RunConfig, folder: Path, rng: random.Random
) -> tuple[dict[str, Row], bool]:
    """One run with one kill: what was on disk before it, and whether a node that joined after it scored something."""
    process = machines.search(folder, config)
    wanted = config.search.num_samples
    wait_for_rows(process, folder, rng.randrange(2, wanted // 10 if kind == "node" else wanted // 2))
    time.sleep(rng.uniform(0, 0.3))
    before = rows_on_disk(folder)
    if kind == "driver":
        process.kill()
        process.communicate()
        before = rows_on_disk(folder)
        process = machines.search(folder, config, resume=True)
    elif kind == "worker":
        os.kill(rng.choice(machines.scoring()), signal.SIGKILL)
    else:
        machines.replace(rng.randrange(len(machines.nodes)))
    result = finish(process)
    return before, kind == "node" and result["num_nodes"] > len(machines.nodes)


def compare(folder: Path, before: dict[str, Row], expected: Undisturbed, tally: Tally) -> None:
    ids = Counter(
        arch_id for part in folder.glob("rows/*.parquet") for arch_id in pq.read_table(part)["arch_id"].to_pylist()
    )
    final, calibration = rows_on_disk(folder), RunFolder(folder).calibration()
    tally.runs += 1
    tally.rows_lost += len((before.keys() | expected.rows.keys()) - final.keys())
    tally.duplicates += sum(count - 1 for count in ids.values()) + len(final.keys() - expected.rows.keys())
    for arch_id, row in final.items():
        tally.wrong_scores += not expected.agrees(row, calibration) or before.get(arch_id, row) != row


def chaos(num_runs: int, num_samples: int, seed: int, num_checked: int) -> dict[str, int]:
    config = RunConfig().with_(SETTINGS, seed=seed, search={"num_samples": num_samples})
    rng, tally, expected, machines = random.Random(seed), Tally(), undisturbed(config, num_checked), Machines(2)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for number in range(num_runs):
                kind, start, folder = KINDS[number % len(KINDS)], time.perf_counter(), Path(scratch) / str(number)
                before, joined = disturb(kind, machines, config, folder, rng)
                tally.added_nodes_used += joined
                compare(folder, before, expected, tally)
                say(f"{number + 1:3} {kind:6} {time.perf_counter() - start:5.0f} s  {tally}")
    finally:
        machines.close()
    return vars(tally)


def show(result: Mapping[str, Any]) -> None:
    names = ("runs", *HARM, "added_nodes_used")
    print_table("searches that were killed", names, [[str(result[name]) for name in names]])


def failed(result: Mapping[str, Any]) -> bool:
    return any(result[name] for name in HARM)
