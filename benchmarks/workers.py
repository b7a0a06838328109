"""Workers that join late or die: what becomes of a search's pace?

python benchmarks/workers.py [--import-seconds 90] [--seconds 15] [--seed 0]

A Ray cluster of several raylets on this machine: a head that scores nothing, and nodes of one CPU.

Late join: a search runs on one node, and another joins whose worker takes --import-seconds to import torch, as it may
on a slow disk; only that node's raylet has the environment that makes it so. Rows per second before it joins, from
then until its worker reads its first batch, and after.

Kill: a search runs on two nodes, and the worker of one is killed with SIGKILL. Rows per second before, from then until
its replacement reads its first batch, and after.

Rows are counted as they come to the run folder, over --seconds before and after. Which worker read how many is not
written down: it is taken from the processor time of each. Other work on the machine slows all of it down; so there is
also printed for what share of the time a worker had something to compute, which that does not change.

Ends with one JSON object: `late_join` {`before`, `during`, `after`: rows per second; `nodes` that read something} and
`kill` {`before`, `during`, `after`, `rows_lost`: rows that were on disk before the kill and are not at the end, or
that are missing of those that were asked for}.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from machines import DEADLINE_S, SETTINGS, Machines, make_reader, rows_on_disk
from watching import Look, Span, Watched, shares

from tvt_ray.cli.main import run
from tvt_ray.cli.options import Parser
from tvt_ray.runs.config import RunConfig, load_config

NUM_TIMED = 8  # architectures that say how many a search needs to last long enough
MARGIN = 1.3
START_S = 15.0  # that a worker may take to start, beside a slow import
SETTLE_S = 2.0  # that a search is left alone for once its workers are at it
SLOW_IMPORT = "TVT_TEST_SLOW_IMPORT"
# Every Python process looks for a module of this name. The finder is asked before any other where torch comes from.
SITE = f"""
import os, sys, time

class SlowTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            time.sleep(float(os.environ["{SLOW_IMPORT}"]))

if any("default_worker" in word for word in sys.orig_argv):
    sys.meta_path.insert(0, SlowTorch())
"""


def slow_environment(folder: Path, seconds: float) -> dict[str, str]:
    """Of a node whose workers take so long to import torch."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), SLOW_IMPORT: str(seconds)}


def steady(watched: Watched, num_workers: int, seconds: float) -> Span:
    """The pace of a search once so many workers are at it."""

    def all_read(look: Look) -> bool:
        return bool(look.num_rows) and sum(worker.reads for worker in look.workers.values()) >= num_workers

    watched.until(all_read, f"a row, and {num_workers} workers at work")
    watched.lasting(SETTLE_S)
    return watched.lasting(seconds)


def num_samples(config: RunConfig, worker_seconds: float) -> int:
    """Architectures that keep one worker busy for so long, two of them half as long."""
    reader, rng = make_reader(config), random.Random(config.seed)
    reader.read(config.space.sample(rng))  # which pays for the start
    begun = time.process_time()  # not the wall's: what else runs here now may have ended by then
    reader.read_all([config.space.sample(rng) for _ in range(NUM_TIMED)])
    return int(MARGIN * worker_seconds * NUM_TIMED / (time.process_time() - begun))


def with_samples(config: RunConfig, worker_seconds: float) -> RunConfig:
    count = num_samples(config, worker_seconds)
    return config.model_copy(update={"search": config.search.model_copy(update={"num_samples": count})})


def late_join(config: RunConfig, import_seconds: float, seconds: float, scratch: Path) -> dict[str, float]:
    """A node that joins a search and takes long to be of use."""
    config = with_samples(config, 3 * START_S + import_seconds + seconds + 2 * (seconds + START_S))
    machines, folder = Machines(1), scratch / "late_join"
    try:
        watched = Watched(machines, folder, machines.search(folder, config))
        before = steady(watched, 1, seconds)
        (first,) = before.last.workers
        begin, joined = watched.look(), machines.add(slow_environment(scratch / "site", import_seconds))

        def joined_reads(look: Look) -> bool:
            return any(worker.node == joined and worker.reads for worker in look.workers.values())

        waited = watched.until(joined_reads, "a batch on the joined node", import_seconds + DEADLINE_S)
        during, after = Span(begin, waited.last), watched.lasting(seconds)
        rest, said = watched.to_the_end()
    finally:
        machines.close()
    late = [pid for pid, worker in rest.last.workers.items() if worker.node == joined]
    share = sum(Span(begin, rest.last).rows_of(pid) for pid in late)
    print(
        f"late join: {before.rate:.2f} rows a second before, {during.rate:.2f} for the {during.seconds:.1f} s until "
        f"the joined node's worker reads, {import_seconds:.0f} s of which it imports, and {after.rate:.2f} after\n"
        f"  the first worker has work for {shares(first, before, during, after)} of that time; "
        f"{said['num_nodes']} nodes read, the joined one about {share:.0f} of {said['num_unique']:,} rows",
        flush=True,
    )
    return {"before": before.rate, "during": during.rate, "after": after.rate, "nodes": said["num_nodes"]}


def kill(config: RunConfig, seconds: float, scratch: Path) -> dict[str, float]:
    """One of two workers is killed."""
    config = with_samples(config, 4 * START_S + 2 * seconds + 2 * (seconds + START_S))
    machines, folder, rng = Machines(2), scratch / "kill", random.Random(config.seed)
    try:
        watched = Watched(machines, folder, machines.search(folder, config))
        before = steady(watched, 2, seconds)
        old = set(machines.scoring())
        victim, on_disk = rng.choice(sorted(old)), rows_on_disk(folder)
        os.kill(victim, signal.SIGKILL)

        def replaced(look: Look) -> bool:
            return any(pid not in old and worker.reads for pid, worker in look.workers.items())

        during, after = watched.until(replaced, "a batch of the replacement"), watched.lasting(seconds)
        watched.to_the_end()
        final = rows_on_disk(folder)
    finally:
        machines.close()
    (survivor,) = old - {victim}
    lost = max(len(on_disk.keys() - final.keys()), config.search.num_samples - len(final))
    alone = ", ".join(f"{span.rows_of(survivor) / span.seconds:.2f}" for span in (before, during, after))
    print(
        f"kill: {before.rate:.2f} rows a second before, {during.rate:.2f} for the {during.seconds:.1f} s until the "
        f"replacement reads, and {after.rate:.2f} after; {lost} of {config.search.num_samples:,} rows lost\n"
        f"  the surviving worker alone: {alone} rows a second; it has work for "
        f"{shares(survivor, before, during, after)} of that time",
        flush=True,
    )
    return {"before": before.rate, "during": during.rate, "after": after.rate, "rows_lost": lost}


def command(args: argparse.Namespace) -> int:
    config = load_config(None, [{**SETTINGS, "seed": args.seed}])
    with tempfile.TemporaryDirectory() as scratch:
        result = {
            "late_join": late_join(config, args.import_seconds, args.seconds, Path(scratch)),
            "kill": kill(config, args.seconds, Path(scratch)),
        }
    rounded = {name: {key: round(value, 2) for key, value in found.items()} for name, found in result.items()}
    print(json.dumps(rounded))
    return 0 if not result["kill"]["rows_lost"] else 1


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks/workers.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--import-seconds", type=float, default=90.0, metavar="S")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="that a pace is measured for")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
