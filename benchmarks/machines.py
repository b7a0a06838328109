"""A Ray cluster of several raylets on this machine, and searches on it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.runner import REPO
from tvt_ray.errors import RunError
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.rows import Row

SETTINGS: dict[str, dict[str, Any]] = {
    "teacher": {"image_size": 16},
    "teacher_training": {"epochs": 4},
    "score": {"calibration_samples": 4},
    "probe": {"num_images": 256},  # so that a search lasts long enough for a node to join it
    "cluster": {"archs_per_trial": 2},
}
DEADLINE_S = 300.0


class Machines:
    """A head without a CPU to score on, and nodes of one CPU each; all on this machine, each with its own raylet."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        # The dashboard's port is any that is free: there may be another Ray on this machine.
        head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": None}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self._start() for _ in range(num_nodes)]
        self.searches: list[subprocess.Popen[str]] = []

    def _start(self) -> Any:
        return self.cluster.add_node(num_cpus=1)

    def replace(self, number: int) -> None:
        """Kills a node's raylet and workers with SIGKILL, and lets another node join."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self._start()

    def scoring(self) -> list[int]:
        """Process ids of the scoring actors: by the name that Ray gives them, and whose raylet's they are."""
        raylets = {node.all_processes["raylet"][0].process.pid for node in self.nodes}
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and b"ScoringTrial" in (entry / "cmdline").read_bytes():
                    variables = dict(
                        line.partition(b"=")[::2] for line in (entry / "environ").read_bytes().split(b"\0")
                    )
                    if int(variables.get(b"RAY_RAYLET_PID", -1)) in raylets:
                        found.append(int(entry.name))
        return sorted(found)

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
