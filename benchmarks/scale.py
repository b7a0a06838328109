"""What the driver spends per architecture as a search grows, with a score that costs next to nothing.

python benchmarks/scale.py [--num-samples 50000] [--searcher random] [--archs-per-trial 64]

Real Tune trials on two workers, real rows; students are made and not run, so that the driver is what is measured.
`first_ms` and `last_ms`: the driver process's own CPU time per architecture over the first and the last tenth;
`rss_growth_mib`: its resident memory at the end less that when trials began. Ends with one JSON object.
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
from typing import Any

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


class Watched(RowRecorder):
    """Notes the driver's CPU time and memory with every batch of rows."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = [self._mark()]

    def _mark(self) -> tuple[int, float, int]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return self.num_rows, usage.ru_utime + usage.ru_stime, resident_pages * os.sysconf("SC_PAGE_SIZE")

    def record(self, archs: Sequence[Arch], rows: Sequence[Row], arrived: float) -> None:
        super().record(archs, rows, arrived)
        self.marks.append(self._mark())

    def cost_ms(self, first: int, last: int) -> float:
        """CPU milliseconds per architecture between two counts of rows."""
        start = max(mark for mark in self.marks if mark[0] <= first)
        end = min(mark for mark in self.marks if mark[0] >= last)
        return 1e3 * (end[1] - start[1]) / (end[0] - start[0])


def search(num_samples: int, searcher: str, archs_per_trial: int, folder: Path) -> tuple[Watched, int]:
    """The recorder, and how many different architectures the rows on disk hold."""
    import ray

    config, empty = RunConfig(), torch.empty(0)
    space, seed = as_space(config.space), config.seed
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
    first, last = recorder.cost_ms(0, tenth), recorder.cost_ms(args.num_samples - tenth, args.num_samples)
    growth = (recorder.marks[-1][2] - recorder.marks[0][2]) / 2**20
    seconds = time.perf_counter() - start
    print(
        f"{args.searcher}: {unique:,} different architectures in {seconds:.0f} s; driver {first:.2f} ms each in the "
        f"first {tenth:,}, {last:.2f} ms in the last ({last / first:.2f}); memory grew by {growth:.0f} MiB"
    )
    print(json.dumps({"first_ms": round(first, 3), "last_ms": round(last, 3), "rss_growth_mib": round(growth, 1)}))
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
