"""A Ray cluster of several raylets on this machine, and searches on it: what chaos.py and workers.py share."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tvt_ray.errors import RunError
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.rows import Row
from tvt_ray.stages.setup import load_data, load_teacher, make_task

REPO = Path(__file__).parents[1]
SETTINGS: dict[str, dict[str, Any]] = {
    "teacher": {"image_size": 16},
    "teacher_training": {"epochs": 4},
    "score": {"calibration_samples": 4},
    "probe": {"num_images": 256},  # so that a search lasts long enough for a node to join it
    "cluster": {"archs_per_trial": 2},
}
DEADLINE_S = 300.0


class Worker(NamedTuple):
    """A process that scores, or is about to."""

    node: int  # its number among the machines
    reads: bool  # it is at a batch right now, rather than starting or waiting
    cpu_s: float  # processor time so far, all threads
    busy_s: float  # that its main thread computed, or would have if others had left it a processor


class Machines:
    """A head without a CPU to score on, and nodes of one CPU each; all on this machine, each with its own raylet."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        # The dashboard's port is any that is free: there may be another Ray on this machine.
        head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": None}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        self.searches: list[subprocess.Popen[str]] = []
        for _ in range(num_nodes):
            self.add()

    def add(self, environment: Mapping[str, str] | None = None) -> int:
        """Lets a node join, whose workers have these variables in their environment: its number."""
        self.nodes.append(self._start(environment))
        return len(self.nodes) - 1

    def _start(self, environment: Mapping[str, str] | None = None) -> Any:
        return self.cluster.add_node(num_cpus=1, env_vars=dict(environment or {}))

    def replace(self, number: int) -> None:
        """Kills a node's raylet and workers with SIGKILL, and lets another node join."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self._start()

    def scoring(self) -> dict[int, Worker]:
        """This cluster's scoring actors by process id: by the name that Ray gives them, and whose raylet's they are."""
        raylets = {node.all_processes["raylet"][0].process.pid: number for number, node in enumerate(self.nodes)}
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and b"ScoringTrial" in (title := (entry / "cmdline").read_bytes()):
                    number = raylets.get(_raylet_of(entry))
                    if number is not None:
                        found[int(entry.name)] = Worker(number, b"ScoringTrial.train" in title, *_seconds(entry))
        return found

    def search(self, folder: Path, config: RunConfig, resume: bool = False) -> subprocess.Popen[str]:
        """search.py on the cluster, in a process of its own, which ends with the cluster at the latest."""
        command = [sys.executable, "search.py", "--run-dir", str(folder), "--json"]
        command += ["--ray-address", str(self.cluster.address)]
        if resume:
            command.append("--resume")
        else:
            command += ["--seed", str(config.seed), "--num-samples", str(config.search.num_samples)]
            for section, values in SETTINGS.items():
                for key, value in values.items():
                    command += ["--set", f"{section}.{key}={value}"]
        pipe = subprocess.PIPE
        self.searches.append(subprocess.Popen(command, cwd=REPO, stdout=pipe, stderr=pipe, text=True))
        return self.searches[-1]

    def close(self) -> None:
        for process in self.searches:
            process.kill()
        self.cluster.shutdown()


def _raylet_of(process: Path) -> int | None:
    variables = dict(line.partition(b"=")[::2] for line in (process / "environ").read_bytes().split(b"\0"))
    return int(variables.get(b"RAY_RAYLET_PID", -1))


def _seconds(process: Path) -> tuple[float, float]:
    """`cpu_s` and `busy_s`. See proc(5) of Linux."""
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    ran, waited, _ = (process / "schedstat").read_text().split()
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"), (int(ran) + int(waited)) / 1e9


def make_reader(config: RunConfig) -> Reader:
    """Reads as a worker of the search does, here and without Ray."""
    torch.set_num_threads(1)
    data = load_data(config)
    return Reader(make_task(config, data, load_teacher(config, data)))


def rows_on_disk(folder: Path) -> dict[str, Row]:
    return {row.arch_id: row for row in RunFolder(folder).rows().read()}


def wait_for_rows(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and len(rows_on_disk(folder)) < count:
        if time.monotonic() > deadline:
            raise RunError(f"{folder}: {count} rows did not come within {DEADLINE_S:.0f} s")
        time.sleep(0.05)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the search says at its end."""
    out, err = process.communicate(timeout=DEADLINE_S)
    if process.returncode or not out:
        raise RunError(f"search.py ended with exit code {process.returncode}: {err.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result
