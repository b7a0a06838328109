"""What the driver spends per architecture as a search grows, with a score that costs next to nothing.

python benchmarks/scale.py [--num-samples 50000] [--searcher random] [--archs-per-trial 64]

Real Tune trials on two workers, real rows; students are made and not run, so that the driver is what is measured.
`first_ms` and `last_ms`: the driver process's own CPU time per architecture over the first and the last tenth;
`growth`: the latter over the former, each divided by what a fixed piece of work took meanwhile, since machines change
their pace. `rss_growth_mib`: its resident memory at the end less that when trials began. Ends with one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tvt_ray.cli import Parser, run
from tvt_ray.cluster import connect
from tvt_ray.config import RunConfig
from tvt_ray.errors import RunError
from tvt_ray.progress import Meter
from tvt_ray.proxies import Probe
from tvt_ray.search.algorithms import Sampler, SearchSettings, build_algorithm
from tvt_ray.search.fusion import Calibration
from tvt_ray.search.rows import Row
from tvt_ray.search.scorer import ScoringTask
from tvt_ray.search.slots import Job, Slots
from tvt_ray.search.store import RowStore, RowWriter
from tvt_ray.search.tune import RowRecorder, run_trials
from tvt_ray.space import Arch, Budget, as_space

NUM_CLASSES = 10
# 3.6e7 architectures, of which a random draw of 50,000 repeats hardly any: known ones that are drawn again cost the
# driver too, but that is the space's size and not the run's.
DEPTHS = (7, 8, 9)
FIXED = {"list": list(range(200)), "keys": {str(i): i for i in range(300)}}


def yardstick() -> float:
    """CPU seconds of this thread for a fixed piece of work, of the kind that the driver does."""
    start = time.thread_time()
    for _ in range(10):
        json.loads(json.dumps(FIXED, sort_keys=True))
    return time.thread_time() - start


class Mark(NamedTuple):
    """The driver after a batch of rows."""

    num_rows: int
    own: float  # CPU seconds of the process so far, without the yardsticks
    yardsticks: float  # CPU seconds that all of them took so far
    resident: int  # bytes


class Watched(RowRecorder):
    """Notes the driver's CPU time and memory with every batch of rows."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.yardsticks = 0.0
        self.marks = [self._mark()]

    def _mark(self) -> Mark:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        own = usage.ru_utime + usage.ru_stime - self.yardsticks
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Mark(self.num_rows, own, self.yardsticks, resident_pages * os.sysconf("SC_PAGE_SIZE"))

    def record(self, archs: Sequence[Arch], rows: Sequence[Row], arrived: float) -> None:
        super().record(archs, rows, arrived)
        self.yardsticks += yardstick()
        self.marks.append(self._mark())


def cost_ms(marks: Sequence[Mark], first: int, last: int) -> tuple[float, float]:
    """CPU milliseconds per architecture between two counts of rows, and per yardstick meanwhile: one with each mark."""
    begin = max(i for i, mark in enumerate(marks) if mark.num_rows <= first)
    finish = min(i for i, mark in enumerate(marks) if mark.num_rows >= last)
    start, end = marks[begin], marks[finish]
    own, measured = end.own - start.own, end.yardsticks - start.yardsticks
    return 1e3 * own / (end.num_rows - start.num_rows), 1e3 * measured / (finish - begin)


def search(num_samples: int, searcher: str, archs_per_trial: int, folder: Path) -> tuple[Watched, int]:
    """The recorder, and how many different architectures the rows on disk hold."""
    import ray

    config, empty = RunConfig(), torch.empty(0)
    space, seed = as_space(config.space.model_copy(update={"depth": DEPTHS})), config.seed
    task = ScoringTask(space, NUM_CLASSES, (), seed, Probe(empty, empty, (empty,), empty))
    settings = SearchSettings(searcher=searcher, num_samples=num_samples)  # type: ignore[arg-type]
    sampler = Sampler(build_algorithm(settings, space, seed), space, Budget(), NUM_CLASSES, seed)
    store = RowStore(folder / "rows")
    with Meter("scoring", num_samples, "architectures") as meter, RowWriter(store) as writer:
        recorder = Watched(writer, Calibration(()), "params", sampler, 1, meter)
        run_trials(Job(task, ray.put(task), Slots(2, 0)), recorder, num_samples, archs_per_trial)
    return recorder, len({row.arch_id for row in store.read()})


def command(args: argparse.Namespace) -> int:
    connect("local")
    start, tenth = time.perf_counter(), args.num_samples // 10
    with tempfile.TemporaryDirectory() as folder:
        recorder, unique = search(args.num_samples, args.searcher, args.archs_per_trial, Path(folder))
    if unique != args.num_samples:
        raise RunError(f"{unique:,} different architectures are on disk, {args.num_samples:,} were asked for")
    marks = recorder.marks
    first, pace_first = cost_ms(marks, 0, tenth)
    last, pace_last = cost_ms(marks, args.num_samples - tenth, args.num_samples)
    growth, memory = (last / pace_last) / (first / pace_first), marks[-1].resident - marks[0].resident
    seconds = time.perf_counter() - start
    print(
        f"{args.searcher}: {unique:,} different architectures in {seconds:.0f} s; driver {first:.2f} ms each in the "
        f"first {tenth:,}, {last:.2f} ms in the last ({last / first:.2f}, by the machine's pace {growth:.2f}); "
        f"memory grew by {memory / 2**20:.0f} MiB"
    )
    result = {"first_ms": first, "last_ms": last, "growth": growth, "rss_growth_mib": memory / 2**20}
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks/scale.py", allow_abbrev=False, description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--num-samples", type=int, default=50_000, metavar="N")
    parser.add_argument("--searcher", default="random", help="random, exhaustive, evolution, tpe, nsga2")
    parser.add_argument("--archs-per-trial", type=int, default=64, metavar="N")
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
