"""Brings a cluster up with `ray up`, breaks it, and looks at what comes out: on machines made of Linux namespaces.

python -m benchmarks cluster_lab [--num-samples 500] [--seed 0]

Three machines on a network of their own, reached by ssh alone: a head that scores nothing, and two workers of a core
each. `cluster-onprem.yaml` as it is shipped describes them, with their addresses, and with this environment in the
place of an installation. Then, in turn: `ray up`; a search whose worker machine loses its power while it scores, and
comes back; a search whose driver is killed, and resumed; one of which a machine is announced to leave, and goes; one
on two machines, beside the same workers on one; refine; distill with two workers on two machines, beside the same on
one; distill while a machine is lost and comes back; `ray down`. And a search on a cluster of no workers, whose
autoscaler brings some and takes them back. It needs root, and sshd and rsync; about a quarter of an hour.

The result: `steps`, each with whether it did what it should, its seconds and what was found; `rows_lost`,
`rows_repeated` and `rows_wrong` over all searches, as `python -m benchmarks chaos` counts them. Exit code 1 where a
step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from ray.autoscaler._private.fake_multi_node import node_provider
from safetensors.torch import load_file

from benchmarks.chaos import Tally, Undisturbed, compare, undisturbed
from benchmarks.machines import SETTINGS, finish, rows_on_disk, wait_for_rows
from benchmarks.namespaces import Lab, Machine, laboratory
from benchmarks.runner import REPO, Record
from tvt_ray.cli.output import print_table
from tvt_ray.errors import RunError
from tvt_ray.progress import say
from tvt_ray.runs.config import RunConfig

HEAD, WORKERS, ALONE, SCALING = 1, (2, 3), 4, 5  # numbers of machines; the last two are no part of the cluster
JOINED_WITHIN_S, DOWN_WITHIN_S = 300.0, 180.0
# Short, and on two machines: a worker has one core.
TRAINING = {"distill.epochs": 12, "distill.batch_size": 64, "distill.warmup_epochs": 1, "distill.lr": 0.003}
BIN = Path(sys.executable).parent
TOKENS = {"RAY_AUTH_MODE": "token"}
NUM_STEPS = 10
NOTICE_S, SETTLED_S, LOOK_S = 120, 10.0, 5.0  # of a machine that leaves: notice, patience, and how long it is looked at
GONE_WITHIN_S = 180.0  # that the autoscaler has for taking back what is idle
# A cluster of one machine, by Ray's provider for that: raylets of a CPU each are its machines. Settings and variables
# are those of Ray's `AutoscalingCluster`.
NO_WORKERS = {
    "cluster_name": "tvt-lab-from-zero",
    "max_workers": 2,
    "idle_timeout_minutes": 0.2,
    "upscaling_speed": 1.0,
    "provider": {
        "type": "fake_multinode",
        "launch_multiple": True,
        "head_node_id": node_provider.FAKE_HEAD_NODE_ID,
        "disable_node_updaters": True,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    "file_mounts_sync_continuously": False,
    **{f"{key}_commands": [] for key in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{key}_start_ray_commands": [] for key in ("head", "worker")},
}
AUTOSCALER = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": node_provider.FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_provider.FAKE_HEAD_NODE_ID,
}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-samples", type=int, default=500, metavar="N")
    parser.add_argument("--num-checked", type=int, default=50, metavar="N", help="rows whose scores are compared")
    parser.add_argument("--seed", type=int, default=0)


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    with laboratory() as lab:
        return Rehearsal(lab, args.num_samples, args.num_checked, args.seed).run()


class Rehearsal:
    """The steps, and what they found."""

    def __init__(self, lab: Lab, num_samples: int, num_checked: int, seed: int) -> None:
        self.lab, self.steps, self.tally = lab, list[dict[str, Any]](), Tally()
        self.config = RunConfig().with_(SETTINGS, seed=seed, search={"num_samples": num_samples})
        self.num_checked = num_checked
        self.home = lab.folder / "home"  # of who calls `ray up`: key, token, and Ray's record of machines
        self.cache = lab.folder / "cache"  # of teachers, which this process trains too
        self.file = lab.folder / "cluster.yaml"
        os.environ["XDG_CACHE_HOME"] = str(self.cache)

    def run(self) -> dict[str, Any]:
        """All of them, until one fails that the others need."""
        for number in (HEAD, *WORKERS):
            self.lab.machine(number)
        if self._step("up", self.up):
            expected = undisturbed(self.config, self.num_checked)
            self._step("search, a machine lost and back", lambda: self.search_without_power(expected))
            self._step("search, its driver killed", lambda: self.search_again(expected))
            self._step("search, a machine leaves with notice", lambda: self.search_with_notice(expected))
            self._step("search, two machines beside one", lambda: self.search_beside(expected))
            self._step("refine", self.refine)
            self._step("distill on two machines", self.distill)
            self._step("distill, a machine lost and back", self.distill_without_power)
            self._step("down", self.down)
            self._step("search from no workers and back", lambda: self.search_from_zero(expected))
        found = {"rows_lost": self.tally.rows_lost, "rows_repeated": self.tally.duplicates}
        return {"steps": self.steps, **found, "rows_wrong": self.tally.wrong_scores}

    def _step(self, name: str, do: Callable[[], dict[str, Any]]) -> bool:
        start, ok = time.perf_counter(), True
        try:
            found = do()
        except (RunError, subprocess.TimeoutExpired) as error:
            found, ok = {"error": str(error)}, False
        seconds = round(time.perf_counter() - start, 1)
        self.steps.append({"name": name, "ok": ok, "wall_s": seconds, **found})
        say(f"{name}: {'as it should' if ok else 'NOT as it should'}, {seconds:.0f} s {found or ''}")
        return ok

    @property
    def head(self) -> Machine:
        return self.lab.machine(HEAD)

    def up(self) -> dict[str, Any]:
        """`ray up` of the shipped file; all machines are in the cluster in the end."""
        self.home.mkdir()
        self._ray("get-auth-token", "--generate")
        self.file.write_text(yaml.safe_dump(cluster_file(self.lab)))
        self._ray("up", "--yes", "--no-config-cache", str(self.file))
        self._wait_for_nodes(1 + len(WORKERS))
        return {"nodes": 1 + len(WORKERS)}

    def down(self) -> dict[str, Any]:
        """Nothing of Ray runs anywhere afterwards."""
        self._ray("down", "--yes", str(self.file))
        deadline = time.monotonic() + DOWN_WITHIN_S
        while left := [f"{m.name}: {found}" for m in self.lab.machines.values() if (found := self._ray_on(m))]:
            _check(time.monotonic() < deadline, f"Ray still runs after {DOWN_WITHIN_S:.0f} s: {'; '.join(left)}")
            time.sleep(2)
        return {}

    def search_without_power(self, expected: Undisturbed) -> dict[str, Any]:
        """A machine goes once a fifth of the rows is there, and is back a little later."""
        folder, process = self._begin_search("power")
        wait_for_rows(process, folder, self.config.search.num_samples // 5)
        before = rows_on_disk(folder)
        self.lab.lose(WORKERS[0])
        self._join(WORKERS[0])
        joined = time.monotonic()
        while not self._scores(WORKERS[0]) and process.poll() is None:
            time.sleep(0.5)
        used = time.monotonic() - joined
        result = finish(process)
        self._compare(folder, before, expected)
        return {"nodes_that_scored": result["num_nodes"], "used_after_s": round(used, 1)}

    def search_again(self, expected: Undisturbed) -> dict[str, Any]:
        """The driver is killed once half of the rows is there."""
        folder, process = self._begin_search("driver")
        wait_for_rows(process, folder, self.config.search.num_samples // 2)
        self.head.run("pkill -9 -f [s]earch.py")
        process.communicate()
        before = rows_on_disk(folder)
        finish(self._begin("search.py", "driver", "--resume"))
        self._compare(folder, before, expected)
        return {"rows_before": len(before)}

    def search_with_notice(self, expected: Undisturbed) -> dict[str, Any]:
        """A machine is announced to leave, as a spot machine is: it is given no more, and goes without a loss."""
        folder, process = self._begin_search("notice")
        wait_for_rows(process, folder, self.config.search.num_samples // 5)
        address = self.lab.machine(WORKERS[1]).address
        mine = f"node['Alive'] and node['NodeManagerAddress'] == '{address}'"
        node = self._asked(self.head, f"next(node['NodeID'] for node in ray.nodes() if {mine})")
        self.head.run(
            f"{BIN}/ray drain-node --address {self.head.address}:6379 --node-id {node} --reason "
            f"DRAIN_NODE_REASON_PREEMPTION --reason-message leaves --deadline-remaining-seconds {NOTICE_S}",
            variables=TOKENS,
        )
        time.sleep(SETTLED_S)
        before = rows_on_disk(folder)
        busy = {number: self._busy(number) for number in WORKERS}
        rows = len(rows_on_disk(folder)) - len(before)
        _check(process.poll() is None, "the search was over before it could be looked at")
        _check(busy[WORKERS[1]] < 0.2, f"the machine that leaves still scores: {busy[WORKERS[1]]:.0%} of a core")
        _check(rows > 0, "nothing was scored on the machine that stays")
        before = rows_on_disk(folder)
        self.lab.lose(WORKERS[1])
        finish(process)
        self._compare(folder, before, expected)
        self._join(WORKERS[1])
        return {f"busy_{'leaves' if number == WORKERS[1] else 'stays'}": round(busy[number], 2) for number in WORKERS}

    def search_beside(self, expected: Undisturbed) -> dict[str, Any]:
        """Two workers on two machines, then two on one: architectures a second of the former over the latter."""
        self._wait_for_nodes(1 + len(WORKERS))
        folder, process = self._begin_search("two")
        two = finish(process)
        self._compare(folder, {}, expected)
        folder, process = self._begin_search("alone", self.lab.machine(ALONE), "local")
        one = finish(process)
        self._compare(folder, {}, expected)
        self.lab.lose(ALONE)
        _check(two["num_nodes"] == 2 and one["num_workers"] == 2, "not two workers each")
        rates = {"two_per_s": two["archs_per_s"], "one_per_s": one["archs_per_s"]}
        return {**rates, "ratio": round(two["archs_per_s"] / one["archs_per_s"], 3)}

    def search_from_zero(self, expected: Undisturbed) -> dict[str, Any]:
        """The autoscaler (v2) brings workers for the search's trials in waiting, and takes them back once idle."""
        machine = self.lab.machine(SCALING)
        self._give_token(machine)
        file = self.lab.folder / "from_zero.json"
        file.write_text(json.dumps(NO_WORKERS))
        # The provider reads its defaults from a file that Ray's package lacks (2.60): on this machine it is there.
        there = Path(node_provider.__file__).parent
        machine.run(f"cp -r {there} /tmp/provider && cp {file} /tmp/provider/example.yaml")
        machine.run(f"mount --bind /tmp/provider {there}")
        variables = {**TOKENS, **AUTOSCALER, "PATH": f"{BIN}:{os.environ['PATH']}"}
        machine.run(f"{BIN}/ray start --head --num-cpus=0 --autoscaling-config={file}", variables=variables)
        _check(self._alive(machine) == 1, "there are workers before anything asks for them")
        start = time.monotonic()
        folder, process = self._begin_search("zero", machine)
        while self._alive(machine) < 2 and process.poll() is None:
            _check(time.monotonic() - start < JOINED_WITHIN_S, "no worker came")
        came, result = time.monotonic() - start, finish(process)
        self._compare(folder, {}, expected)
        ended = time.monotonic()
        while self._alive(machine) > 1:
            _check(time.monotonic() - ended < GONE_WITHIN_S, f"idle workers are there after {GONE_WITHIN_S:.0f} s")
            time.sleep(1)
        gone = time.monotonic() - ended
        self.lab.lose(SCALING)
        return {"nodes": result["num_nodes"], "came_after_s": round(came, 1), "went_after_s": round(gone, 1)}

    def _compare(self, folder: Path, before: Mapping[str, Any], expected: Undisturbed) -> None:
        compare(folder, dict(before), expected, self.tally)
        _check(not self._harm, self._harm)

    def _scores(self, number: int) -> bool:
        """Whether a worker reads on a machine."""
        return bool(self.lab.machine(number).run("pgrep -f '[r]ay::ScoringTrial'", check=False).stdout.split())

    def _busy(self, number: int) -> float:
        """What scoring takes of a core on a machine, over some seconds."""
        stats = "cat $(pgrep -f '[r]ay::ScoringTrial' | sed 's#.*#/proc/&/stat#') /dev/null"
        ticks = stats + " | sed 's/.*) //' | awk '{s += $12 + $13} END {print s + 0}'"  # its utime and stime
        first = float(self.lab.machine(number).run(ticks).stdout)
        time.sleep(LOOK_S)
        return (float(self.lab.machine(number).run(ticks).stdout) - first) / os.sysconf("SC_CLK_TCK") / LOOK_S

    def refine(self) -> dict[str, Any]:
        """Eight students, cohorts on both machines."""
        result = self._tvt("refine", "power", "--num-students 8", *_training())
        return {"students": result["num_students"], "epochs": result["epochs_spent"]}

    def distill(self) -> dict[str, Any]:
        """Two workers, of which no machine holds both, learn what one learns, up to the order of sums."""
        run = self.lab.folder / "runs"
        shutil.copytree(run / "driver", run / "one")
        shutil.copytree(run / "driver", run / "lost")
        (two, two_s), (one, one_s) = self._distilled("driver", 2), self._distilled("one", 1)
        off = max(float((two[name] - one[name]).abs().max()) for name in one)
        _check(off < 1e-2, f"weights of two workers and of one differ by up to {off:.2g}")
        return {"largest_difference": off, "two_s": two_s, "one_s": one_s}

    def distill_without_power(self) -> dict[str, Any]:
        """A machine goes after a few epochs and comes back; the training goes on from its last state."""
        process = self._begin("-m tvt_ray distill", "lost", "--num-workers 2", *_training(60))
        states = self.lab.folder / "runs" / "lost"
        deadline = time.monotonic() + JOINED_WITHIN_S
        while not list(states.glob("distill/*/checkpoint.pt")) and process.poll() is None:
            _check(time.monotonic() < deadline, "no state of the training was kept")
            time.sleep(0.2)
        self.lab.lose(WORKERS[1])
        self._join(WORKERS[1])
        (student,) = finish(process)["students"]
        return {"epochs": student["epochs"], "test_acc": student["test_acc"]}

    def _distilled(self, run: str, workers: int) -> tuple[Mapping[str, torch.Tensor], float]:
        start = time.perf_counter()
        (student,) = self._tvt("distill", run, f"--num-workers {workers}", *_training())["students"]
        return load_file(Path(student["path"]) / "model.safetensors"), round(time.perf_counter() - start, 1)

    @property
    def _harm(self) -> str:
        counts = {name: getattr(self.tally, name) for name in ("rows_lost", "duplicates", "wrong_scores")}
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count)

    def _begin_search(
        self, name: str, machine: Machine | None = None, address: str = "auto"
    ) -> tuple[Path, subprocess.Popen[str]]:
        folder = self.lab.folder / "runs" / name
        return folder, self._begin("search.py", name, *self._search_flags, machine=machine, address=address)

    @property
    def _search_flags(self) -> list[str]:
        wanted = f"--num-samples {self.config.search.num_samples} --seed {self.config.seed}"
        settings = [f"--set {part}.{key}={value}" for part, values in SETTINGS.items() for key, value in values.items()]
        return [wanted, *settings]

    def _tvt(self, verb: str, run: str, *flags: str) -> dict[str, Any]:
        """The JSON object that a command on the head ends with."""
        return finish(self._begin(f"-m tvt_ray {verb}", run, *flags))

    def _begin(
        self, program: str, run: str, *flags: str, machine: Machine | None = None, address: str = "auto"
    ) -> subprocess.Popen[str]:
        """A command on the head, or another machine, about the run of that name."""
        folder = self.lab.folder / "runs" / run
        words = [f"{BIN}/python {program} --run-dir {folder} --json --ray-address {address}", *flags]
        command = (machine or self.head).ssh(" ".join(words), self._variables)
        return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def _variables(self) -> dict[str, str]:
        return {**TOKENS, "XDG_CACHE_HOME": str(self.cache), "OMP_NUM_THREADS": "1"}

    def _ray(self, *words: str) -> None:
        variables = {**os.environ, **TOKENS, "HOME": str(self.home), "RAY_UP_enable_autoscaler_v2": "0"}
        done = subprocess.run(
            [str(BIN / "ray"), *words],
            cwd=REPO,
            env=variables,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise RunError(f"ray {words[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")

    def _join(self, number: int) -> None:
        """A machine that was lost starts, and joins the cluster as its operator has it do."""
        file = yaml.safe_load(self.file.read_text())
        machine = self.lab.machine(number)
        self._give_token(machine)
        for command in file["worker_start_ray_commands"]:
            machine.run(command, variables={"RAY_HEAD_IP": self.head.address})

    def _give_token(self, machine: Machine) -> None:
        machine.run("mkdir -p ~/.ray")
        machine.run(f"cp {self.home}/.ray/auth_token ~/.ray/auth_token")

    def _wait_for_nodes(self, count: int) -> None:
        """That are alive, as the head has it."""
        deadline = time.monotonic() + JOINED_WITHIN_S
        while (alive := self._alive(self.head)) < count:
            _check(time.monotonic() < deadline, f"{alive} of {count} nodes joined within {JOINED_WITHIN_S:.0f} s")
            time.sleep(2)

    def _alive(self, machine: Machine) -> int:
        """Nodes of the cluster whose head is on a machine."""
        return int(self._asked(machine, "sum(node['Alive'] for node in ray.nodes())") or "0")

    def _asked(self, machine: Machine, expression: str) -> str:
        """What an expression about the cluster of a machine's head is; empty: there is none."""
        code = f"import ray; ray.init('auto', log_to_driver=False); print({expression})"
        done = machine.run(f"{BIN}/python -c {shlex.quote(code)}", check=False, variables=TOKENS)
        return (done.stdout.split() or [""])[-1]

    def _ray_on(self, machine: Machine) -> str:
        """Ray's processes there; empty: none."""
        processes = machine.run("ps -eo args | grep -E '[r]aylet/raylet |[g]cs/gcs_server '", check=False)
        return ", ".join(line[:60] for line in processes.stdout.splitlines())


def cluster_file(lab: Lab) -> dict[str, Any]:
    """`cluster-onprem.yaml` with the laboratory's addresses and key, and this environment for an installation."""
    text = (REPO / "cluster-onprem.yaml").read_text().replace("~/tvt_env/bin", str(BIN))
    text = text.replace("$HOME/tvt_env/bin", str(BIN))
    file: dict[str, Any] = yaml.safe_load(text)
    addresses = [lab.machines[number].address for number in (HEAD, *WORKERS)]
    file["provider"] |= {"head_ip": addresses[0], "worker_ips": addresses[1:]}
    file["auth"] = {"ssh_user": "root", "ssh_private_key": str(lab.key)}
    kept = [command for command in file["setup_commands"] if command.startswith(("chmod", "ln "))]
    file["setup_commands"] = ["mkdir -p ~/.local/bin", *kept]  # where `ray down` finds Ray
    start = file["worker_start_ray_commands"]
    file["worker_start_ray_commands"] = [command.replace("ray start", "ray start --num-cpus=1") for command in start]
    return file


def _training(epochs: int = TRAINING["distill.epochs"]) -> list[str]:
    return [f"--set {key}={value}" for key, value in {**TRAINING, "distill.epochs": epochs}.items()]


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RunError(otherwise)


def show(result: Mapping[str, Any]) -> None:
    rows = [
        [each["name"], "yes" if each["ok"] else "NO", f"{each['wall_s']:.0f} s", _rest(each)]
        for each in result["steps"]
    ]
    print_table("laboratory", ["step", "as it should", "took", "found"], rows)


def _rest(step: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in step.items() if key not in ("name", "ok", "wall_s"))


def failed(result: Mapping[str, Any]) -> bool:
    return len(result["steps"]) < NUM_STEPS or not all(each["ok"] for each in result["steps"])
