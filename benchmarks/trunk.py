"""A training step through a ConvNet's first stages on a CPU: timm's modules beside those of tvt_ray.

python -m benchmarks trunk [--network tf_efficientnet_lite0] [--stages 5] [--batch-size 32] [--threads 1]

Forward and backward of inherited stages at 128 pixels, in float32 and bfloat16, each in a process of its own: timm's
modules, `vits/trunk_kernels.py`, and that with `training/memory.py`. The result: milliseconds (the fastest of some
steps), and `ratio`, timm's faster precision over tvt_ray's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.runner import Record
from tvt_ray.cli.output import print_table
from tvt_ray.training.memory import keep_freed_memory
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.trunk_kernels import speed_up
from tvt_ray.vits.trunks import Trunk

SIZE, NUM_STEPS = 128, 8
WAYS = ("timm's modules", "folded", "folded, memory kept")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", default="tf_efficientnet_lite0", metavar="NAME")
    parser.add_argument("--stages", type=int, default=5, metavar="N")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    asked = (args.network, args.stages, args.batch_size, args.threads)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        ms = {
            way: {name: record.once(f"{way}-{name}", pool.apply, step_ms, (way, name, *asked)) for name in PRECISIONS}
            for way in WAYS
        }
    return {"ms": ms, "ratio": round(min(ms[WAYS[0]].values()) / min(ms[WAYS[-1]].values()), 2)}


def step_ms(way: str, precision: str, network: str, stages: int, batch_size: int, threads: int) -> float:
    """Milliseconds of the fastest step, in this process."""
    ensure_torchvision()
    import timm

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    trunk = Trunk(network, stages)
    trunk.inherit(timm.create_model(network))
    trunk.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if way != WAYS[0]:
        speed_up(trunk)
    if way == WAYS[-1]:
        keep_freed_memory()
    images, seconds = torch.randn(batch_size, 3, SIZE, SIZE), []
    for _ in range(NUM_STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "float32"):
            features = trunk(images)
        features.float().square().mean().backward()
        seconds.append(time.perf_counter() - start)
    return round(1e3 * min(seconds[1:]), 1)


def show(result: Mapping[str, Any]) -> None:
    rows = [[way, *(f"{ms:.0f}" for ms in of_way.values())] for way, of_way in result["ms"].items()]
    print_table("milliseconds of a training step", ["", *PRECISIONS], rows)
    print(f"timm's modules take {result['ratio']:.2f} times as long, each in the faster precision")
