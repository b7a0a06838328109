"""What Ray costs a search: its architectures per second against those of as many plain scorers.

python benchmarks/ray_overhead.py [--cases autoformer,digits] [--num-workers 2]

Workers x the rate of the in-process scorer (as many plain processes side by side as there are workers, one thread each,
so that they share the machine as Ray's workers do; half of it measured before the search and half after, since machines
change their pace) is 1. Ends with one JSON object: `efficiency` and `num_pids`
(distinct processes that scored, which should be the workers) by case.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from scorer import CASES, CONFIGS, make_task, names_of

from tvt_ray.cli.main import run
from tvt_ray.cli.options import Parser
from tvt_ray.errors import RunError
from tvt_ray.scoring.reader import Reader

SECONDS = {"autoformer": 40.0, "pit": 40.0, "digits": 20.0}  # that the plain scorers run for, in all
NUM_SAMPLES = {"autoformer": 160, "pit": 160, "digits": 5000}
REPO = Path(__file__).parents[1]


def score_for(case: str, num_images: int, seconds: float, seed: int, ready: Any, rates: Any) -> None:
    """Puts this process's architectures per second into `rates`."""
    torch.set_num_threads(1)
    task, rng, count = make_task(case, num_images, "float32"), random.Random(seed), 0
    reader = Reader(task)
    reader.read(task.space.sample(rng))
    ready.wait()
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        reader.read(task.space.sample(rng))
        count += 1
    rates.put(count / (time.perf_counter() - start))


def plain_rate(case: str, num_images: int, num_workers: int) -> float:
    """Architectures per second of plain processes side by side."""
    context = get_context("spawn")
    ready, rates = context.Barrier(num_workers), context.Queue()
    arguments = [(case, num_images, SECONDS[case] / 2, seed, ready, rates) for seed in range(num_workers)]
    processes = [context.Process(target=score_for, args=each) for each in arguments]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def search_rate(case: str, num_images: int, num_workers: int, num_samples: int) -> tuple[float, int]:
    """`archs_per_s` and `num_pids` of search.py, on digit images at the case's resolution."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "search.py", "--config", str(CONFIGS / CASES[case]), "--dataset", "digits"]
        command += [
            "--teacher",
            "resnet20",
            "--set",
            "teacher_training.epochs=1",
            "--json",
            "--run-dir",
            f"{folder}/run",
        ]
        command += ["--set", f"cluster.scoring_workers={num_workers}", "--set", f"probe.num_images={num_images}"]
        command += ["--set", "score.calibration_samples=8", "--num-samples", str(num_samples)]
        command += ["--set", "budget.min_params=null", "--set", "budget.max_params=null"]
        done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RunError(f"search.py ended with exit code {done.returncode}")
    result = json.loads(done.stdout.splitlines()[-1])
    return result["archs_per_s"], result["num_pids"]


def command(args: argparse.Namespace) -> int:
    result: dict[str, dict[str, float]] = {"efficiency": {}, "num_pids": {}}
    for case in names_of(args.cases, CASES, "--cases"):
        before = plain_rate(case, args.num_images, args.num_workers)
        rate, pids = search_rate(case, args.num_images, args.num_workers, args.num_samples or NUM_SAMPLES[case])
        plain = (before + plain_rate(case, args.num_images, args.num_workers)) / 2
        result["efficiency"][case], result["num_pids"][case] = round(rate / plain, 3), pids
        print(
            f"{case:12} {args.num_workers} plain scorers {plain:7.2f}/s  search.py {rate:7.2f}/s on {pids} processes: "
            f"{rate / plain:.2f}",
            flush=True,
        )
    print(json.dumps(result))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks/ray_overhead.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", default="autoformer,digits", metavar="A,B")
    parser.add_argument("--num-workers", type=int, default=2, metavar="N")
    parser.add_argument("--num-images", type=int, default=32, metavar="N")
    parser.add_argument(
        "--num-samples", type=int, metavar="N", help="of each search (default: 160 at 224 pixels, 5,000)"
    )
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(run(build_parser()))
