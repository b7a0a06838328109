"""What the driver spends per architecture as a search grows, and what Ray costs a search.

python -m benchmarks scale [--num-samples 50000] [--searcher random] [--ray] [--cases autoformer,digits]

The driver's side of a search as it is: sampler, batches, rows, scores, metrics, meter, and parts on disk. Two workers
are stood in for, which answer at once with a reading that nobody took; the score is the number of parameters. With
--ray they are real, Tune's trials in processes of their own, which make students and do not run them: Tune's and
Ray's part of the driver's time is then counted too.

`first_ms` and `last_ms`: the driver process's own CPU time per architecture over the first and the last tenth;
`growth`: the latter over the former, each divided by what a fixed piece of work took meanwhile, since machines change
their pace. `rss_growth_mib`: its resident memory at the end less that when the search began. `efficiency` and
`num_pids`, by case: architectures per second of a whole search against those of as many plain scorers (overhead.py),
and distinct processes that scored, which should be the workers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.overhead import compare
from benchmarks.runner import Record, names_of
from benchmarks.scorer import CASES
from tvt_ray.cli.output import print_table
from tvt_ray.cluster.connection import connected
from tvt_ray.cluster.metrics import record_lag, record_rows
from tvt_ray.cluster.scoring import run_workers
from tvt_ray.cluster.slots import Job, Slots
from tvt_ray.errors import RunError
from tvt_ray.progress import Meter
from tvt_ray.proxies.probe import Probe
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import Calibration
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.batching import Dispatcher
from tvt_ray.searchers.recorder import Recorder, Sampler, Scorer
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.storage.records import RecordWriter
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Limits

NUM_CLASSES = 10
NUM_WORKERS = 2
# 3.6e7 architectures, of which a random draw of 50,000 repeats hardly any: known ones that are drawn again cost the
# driver too, but that is the space's size and not the run's.
DEPTHS = (7, 8, 9)
FIXED = {"list": list(range(200)), "keys": {str(i): i for i in range(300)}}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-samples", type=int, default=50_000, metavar="N")
    parser.add_argument("--searcher", default="random", help="<searchers>")
    parser.add_argument("--archs-per-trial", type=int, default=64, metavar="N")
    parser.add_argument("--ray", action="store_true", help="real workers, which take the driver's time too")
    parser.add_argument("--cases", default="autoformer,digits", metavar="A,B", help="of efficiency; '' for none")
    parser.add_argument("--num-workers", type=int, default=2, metavar="N", help="of efficiency")
    parser.add_argument("--num-images", type=int, default=32, metavar="N", help="of efficiency")
    parser.add_argument(
        "--num-scored", type=int, metavar="N", help="by each search of efficiency (default: 160 at 224 pixels, 5,000)"
    )


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    cases = names_of(args.cases, CASES, "--cases")
    driver = record.once("driver", cost_of_driver, args)
    sizes = (args.num_workers, args.num_images, args.num_scored)
    compared = {case: record.once(f"efficiency-{case}", compare, case, *sizes) for case in cases}
    return {
        **driver,
        "efficiency": {case: found["efficiency"] for case, found in compared.items()},
        "num_pids": {case: found["num_pids"] for case, found in compared.items()},
        "rates": compared,
    }


def cost_of_driver(args: argparse.Namespace) -> dict[str, float]:
    start, tenth = time.perf_counter(), args.num_samples // 10
    with tempfile.TemporaryDirectory() as scratch, connected("local") if args.ray else contextlib.nullcontext():
        folder = RunFolder(Path(scratch))
        marks = search(args, folder, run_real if args.ray else run_stand_ins).marks
        unique = len({row.arch_id for row in folder.rows().read()})
    if unique != args.num_samples:
        raise RunError(f"{unique:,} different architectures are on disk, {args.num_samples:,} were asked for")
    first, pace_first = cost_ms(marks, 0, tenth)
    last, pace_last = cost_ms(marks, args.num_samples - tenth, args.num_samples)
    found = {
        "num_samples": args.num_samples,
        "seconds": time.perf_counter() - start,
        "first_ms": first,
        "last_ms": last,
        "growth": (last / pace_last) / (first / pace_first),
        "rss_growth_mib": (marks[-1].resident - marks[0].resident) / 2**20,
    }
    return {name: round(value, 3) for name, value in found.items()}


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


class Watched(Recorder):
    """Notes the driver's CPU time and memory with every batch of rows, and the machine's pace."""

    paced = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.yardsticks = 0.0
        self.marks = [self._mark()]

    def _mark(self) -> Mark:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        own = usage.ru_utime + usage.ru_stime - self.yardsticks
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Mark(self.num_rows, own, self.yardsticks, resident_pages * os.sysconf("SC_PAGE_SIZE"))

    def record(self, archs: Sequence[Arch], rows: Sequence[Row]) -> None:
        super().record(archs, rows)
        self.yardsticks += yardstick() if self.paced else 0.0
        self.marks.append(self._mark())


def cost_ms(marks: Sequence[Mark], first: int, last: int) -> tuple[float, float]:
    """CPU milliseconds per architecture between two counts of rows, and per yardstick meanwhile: one with each mark."""
    begin = max(i for i, mark in enumerate(marks) if mark.num_rows <= first)
    finish = min(i for i, mark in enumerate(marks) if mark.num_rows >= last)
    start, end = marks[begin], marks[finish]
    own, measured = end.own - start.own, end.yardsticks - start.yardsticks
    return 1e3 * own / (end.num_rows - start.num_rows), 1e3 * measured / (finish - begin)


def make_task() -> ReadingTask:
    """Nothing is read of the students, so the probe is empty."""
    config, empty = RunConfig(), torch.empty(0)
    space = config.space.with_(depth=DEPTHS)  # type: ignore[attr-defined]
    return ReadingTask(space, NUM_CLASSES, (), config.seed, Probe(empty, empty))


def search(
    args: argparse.Namespace, folder: RunFolder, run: Callable[[Dispatcher], None], kind: type[Watched] = Watched
) -> Watched:
    """As the search's stage puts it together; `run` reads what the dispatcher deals out."""
    task, settings = make_task(), SearchSettings(searcher=args.searcher, num_samples=args.num_samples)
    algorithm = build_algorithm(settings, task.space, task.seed)
    sampler = Sampler(algorithm, Limits(task.space, RunConfig().budget, NUM_CLASSES), task.seed)
    scorer = Scorer("params", settings.num_objectives, Calibration(()))
    with Meter("scoring", args.num_samples, "architectures") as meter, RecordWriter(folder.rows()) as writer:
        recorder = kind(writer.put, sampler, scorer, args.searcher, record_rows)

        def advance(count: int) -> None:
            meter.advance(count, f"best {recorder.best:.4g}")

        dispatcher = Dispatcher(task, recorder, args.num_samples, args.archs_per_trial, on_read=advance)
        run(dispatcher)
    return recorder


def run_stand_ins(dispatcher: Dispatcher) -> None:
    """What the driver does for each worker's result, in turn: see WorkerSearcher and WorkerCallback."""
    task = dispatcher.task
    batches = {f"worker{number}": dispatcher.next(f"worker{number}") for number in range(NUM_WORKERS)}
    while not dispatcher.over:
        for worker, batch in batches.items():
            if batch is not None:
                ended = time.time()
                json.dumps([task.space.to_json(arch) for arch in batch.archs])  # as it is sent
                dispatcher.done(worker, tuple(({}, None, 0.01, "") for _ in batch.archs))
                record_lag(ended)
            batches[worker] = dispatcher.next(worker)


def run_real(dispatcher: Dispatcher) -> None:
    import ray

    run_workers(Job(dispatcher.task, ray.put(dispatcher.task), Slots(NUM_WORKERS, 0)), dispatcher)


def show(result: Mapping[str, Any]) -> None:
    units = {"first_ms": "ms", "last_ms": "ms", "growth": "times, by the machine's pace", "rss_growth_mib": "MiB"}
    rows = [[name, f"{result[name]:.2f} {unit}"] for name, unit in units.items()]
    print_table(f"driver, {result['num_samples']:,} architectures in {result['seconds']:.0f} s", ["", ""], rows)
    rows = [
        [
            case,
            f"{each['plain_per_s']:.2f}",
            f"{each['search_per_s']:.2f}",
            f"{each['efficiency']:.2f}",
            f"{each['num_pids']}",
        ]
        for case, each in result["rates"].items()
    ]
    if rows:
        print_table("architectures per second", ["case", "plain scorers", "search", "share", "processes"], rows)
