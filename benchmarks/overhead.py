"""What Ray costs a search: its architectures per second against those of as many plain scorers.

The rate of plain processes (as many side by side as there are workers, one thread each, so that they share the machine
as Ray's workers do; half of it measured before the search and half after, since machines change their pace) is 1.
"""

from __future__ import annotations

import random
import tempfile
import time
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.runner import tvt
from benchmarks.scorer import CASES, CONFIGS, make_task
from tvt_ray.scoring.reader import Reader

SECONDS = {"autoformer": 40.0, "pit": 40.0, "digits": 20.0}  # that the plain scorers run for, in all
NUM_SAMPLES = {"autoformer": 160, "pit": 160, "digits": 5000}


def compare(case: str, num_workers: int, num_images: int, num_samples: int | None) -> dict[str, float]:
    before = plain_rate(case, num_images, num_workers)
    rate, pids = search_rate(case, num_images, num_workers, num_samples or NUM_SAMPLES[case])
    plain = (before + plain_rate(case, num_images, num_workers)) / 2
    return {"plain_per_s": plain, "search_per_s": rate, "efficiency": round(rate / plain, 3), "num_pids": pids}


def score_for(
    case: str, num_images: int, seconds: float, seed: int, ready: Any, rates: Any, device: str = "cpu"
) -> None:
    """Puts this process's architectures per second into `rates`."""
    torch.set_num_threads(1)
    task, rng, count = make_task(case, num_images, "float32"), random.Random(seed), 0
    reader = Reader(task, device)
    reader.read(task.space.sample(rng))
    ready.wait()
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        reader.read(task.space.sample(rng))
        count += 1
    rates.put(count / (time.perf_counter() - start))


def plain_rate(
    case: str, num_images: int, num_workers: int, device: str = "cpu", seconds: float | None = None
) -> float:
    """Architectures per second of plain processes side by side, over `seconds` (None: half of the case's)."""
    context = get_context("spawn")
    ready, rates = context.Barrier(num_workers), context.Queue()
    lasting = seconds or SECONDS[case] / 2
    arguments = [(case, num_images, lasting, seed, ready, rates, device) for seed in range(num_workers)]
    processes = [context.Process(target=score_for, args=each) for each in arguments]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def search_rate(case: str, num_images: int, num_workers: int, num_samples: int) -> tuple[float, int]:
    """`archs_per_s` and `num_pids` of a search on digit images at the case's resolution."""
    settings = {
        "teacher_training.epochs": 1,
        "cluster.scoring_workers": num_workers,
        "probe.num_images": num_images,
        "score.calibration_samples": 8,
        "budget.min_params": "null",
        "budget.max_params": "null",
    }
    words = ["--config", str(CONFIGS / CASES[case]), "--dataset", "digits", "--teacher", "resnet20"]
    words += ["--num-samples", str(num_samples)]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        result = tvt("search", *words, "--run-dir", f"{folder}/run")
    return result["archs_per_s"], result["num_pids"]
