"""Searches that are killed: is anything lost, repeated or wrong?

python benchmarks/chaos.py [--runs 20] [--num-samples 300] [--seed 0]

A Ray cluster of several raylets on this machine: a head that scores nothing and two nodes. Each run is a search whose
node, worker or driver (in turn) is killed with SIGKILL at a random moment while it scores. After the driver it is
resumed; after a node, another one joins. At its end every row is compared with what was on disk just before the kill
and with the same search undisturbed and without Ray. Ends with one JSON object: `runs`; `rows_lost`, rows that were on
disk before a kill and are not at the end, and rows that are missing from the set; `duplicates`, architectures on disk
more than once; `wrong_scores`, rows that differ from the undisturbed ones; and `added_nodes_used`, how many of the
nodes that joined after a kill scored something.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from tvt_ray.cli import Parser, run
from tvt_ray.config import RunConfig, load_config
from tvt_ray.distill.teacher import get_teacher
from tvt_ray.errors import RunError
from tvt_ray.pipeline import calibration_archs, load_data, make_task
from tvt_ray.runs import RunFolder
from tvt_ray.search.algorithms import Sampler, build_algorithm
from tvt_ray.search.fusion import Calibration
from tvt_ray.search.rows import Row
from tvt_ray.search.scorer import Scorer

REPO = Path(__file__).parents[1]
KINDS = ("node", "worker", "driver")
SETTINGS: dict[str, Any] = {
    "teacher": {"image_size": 16},
    "teacher_training": {"epochs": 4},
    "score": {"calibration_samples": 4},
    "probe": {"num_images": 256},  # so that a search lasts long enough for a node to join it
    "search": {"archs_per_trial": 2},
}
DEADLINE_S = 300.0


class Machines:
    """A head without a CPU to score on, and nodes of one CPU each; all on this machine, each with its own raylet."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.add() for _ in range(num_nodes)]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1)

    def replace(self, number: int) -> None:
        """Kills a node's raylet and workers with SIGKILL, and lets another node join."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self.add()

    def scoring_pids(self) -> list[int]:
        """Processes of this cluster's scoring actors, by the name that Ray gives them and the raylet they belong to."""
        raylets = {str(node.all_processes["raylet"][0].process.pid).encode() for node in self.nodes}
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and b"ScoringTrial" in (entry / "cmdline").read_bytes():
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    if any(b"RAY_RAYLET_PID=" + pid in variables for pid in raylets):
                        found.append(int(entry.name))
        return found

    def close(self) -> None:
        self.cluster.shutdown()


@dataclass
class Tally:
    """What went wrong over all runs."""

    runs: int = 0
    rows_lost: int = 0
    duplicates: int = 0
    wrong_scores: int = 0
    added_nodes_used: int = 0


def expected_rows(config: RunConfig, num_checked: int) -> dict[str, Row | None]:
    """What an undisturbed random search has: the first `num_checked` as scored here one after the other, else None."""
    torch.set_num_threads(1)
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    task = make_task(config, data, teacher)
    scorer = Scorer(task)
    sampler = Sampler(
        build_algorithm(config.search, task.space, config.seed), task.space, config.budget, 10, config.seed
    )
    calibration = Calibration.from_rows(scorer.score_all(calibration_archs(config, data.num_classes)))
    archs = [arch for arch in (sampler.ask() for _ in range(config.search.num_samples)) if arch is not None]
    expected: dict[str, Row | None] = {task.space.arch_id(arch): None for arch in archs}
    for row in scorer.score_all(archs[:num_checked]):
        expected[row.arch_id] = row.with_score(calibration.fuse(config.score.name, row))
    return expected


def start_search(folder: Path, config: RunConfig, address: str, resume: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "search.py", "--run-dir", str(folder), "--json", "--ray-address", address]
    if resume:
        command.append("--resume")
    for section, values in {} if resume else {**SETTINGS, "seed": config.seed}.items():  # type: ignore[dict-item]
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            command += ["--set", f"{section}.{key}={value}".replace(".=", "=")]
    if not resume:
        command += ["--num-samples", str(config.search.num_samples)]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_on_disk(folder: Path) -> dict[str, Row]:
    return {row.arch_id: row for row in RunFolder(folder).store().read()}


def wait_for_rows(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and len(rows_on_disk(folder)) < count:
        if time.monotonic() > deadline:
            raise RunError(f"{folder}: {count} rows did not come within {DEADLINE_S:.0f} s")
        time.sleep(0.05)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=DEADLINE_S)
    if process.returncode or not out:
        raise RunError(f"search.py ended with exit code {process.returncode}: {err.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def disturb(
    kind: str, machines: Machines, config: RunConfig, folder: Path, rng: random.Random
) -> tuple[dict[str, Row], bool]:
    """One run with one kill: what was on disk before it, and whether a node that joined after it scored something."""
    process = start_search(folder, config, machines.address, resume=False)
    wanted = config.search.num_samples
    wait_for_rows(process, folder, rng.randrange(2, wanted // 10 if kind == "node" else wanted // 2))
    time.sleep(rng.uniform(0, 0.3))
    before = rows_on_disk(folder)
    if kind == "driver":
        process.kill()
        process.communicate()
        before = rows_on_disk(folder)
        process = start_search(folder, config, machines.address, resume=True)
    elif kind == "worker":
        os.kill(rng.choice(machines.scoring_pids()), signal.SIGKILL)
    else:
        machines.replace(rng.randrange(len(machines.nodes)))
    result = finish(process)
    return before, kind == "node" and result["num_nodes"] > len(machines.nodes)


def compare(folder: Path, before: dict[str, Row], expected: Mapping[str, Row | None], tally: Tally) -> None:
    ids = Counter(
        arch_id for part in folder.glob("rows/*.parquet") for arch_id in pq.read_table(part)["arch_id"].to_pylist()
    )
    final = rows_on_disk(folder)
    tally.runs += 1
    tally.rows_lost += len((before.keys() | expected.keys()) - final.keys())
    tally.duplicates += sum(count - 1 for count in ids.values()) + len(final.keys() - expected.keys())
    for arch_id, row in final.items():
        ours = expected.get(arch_id)
        differs = ours is not None and (row.components, row.score) != (ours.components, ours.score)
        tally.wrong_scores += differs or before.get(arch_id, row) != row


def chaos(num_runs: int, num_samples: int, seed: int, num_checked: int) -> Tally:
    config = load_config(None, [{**SETTINGS, "seed": seed}, {"search": {"num_samples": num_samples}}])
    rng, tally, expected, machines = random.Random(seed), Tally(), expected_rows(config, num_checked), Machines(2)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for number in range(num_runs):
                kind, start, folder = KINDS[number % len(KINDS)], time.perf_counter(), Path(scratch) / str(number)
                before, joined = disturb(kind, machines, config, folder, rng)
                tally.added_nodes_used += joined
                compare(folder, before, expected, tally)
                print(f"{number + 1:3} {kind:6} {time.perf_counter() - start:5.0f} s  {tally}", flush=True)
    finally:
        machines.close()
    return tally


def command(args: argparse.Namespace) -> int:
    tally = chaos(args.runs, args.num_samples, args.seed, args.num_checked or args.num_samples)
    print(json.dumps(vars(tally)))
    return 0 if not (tally.rows_lost or tally.duplicates or tally.wrong_scores) else 1


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks/chaos.py", allow_abbrev=False, description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--runs", type=int, default=20, metavar="N")
    parser.add_argument("--num-samples", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-checked", type=int, metavar="N", help="rows whose scores are compared (default: all)")
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
