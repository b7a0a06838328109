"""What this machine's GPU does with what was written for one: the same numbers, how fast, and at its limits.

python -m benchmarks gpu [--device cuda] [--cases autoformer,digits] [--actors 1,2,4,8]

- *parity*: every proxy of a few architectures on the GPU and on the CPU, in exact float32: the largest relative
  difference, which should be below TOLERANCE.
- *reading*: architectures a second and the share of the fastest large matrix product, of one process (scorer.py); then
  of several processes side by side, until more of them bring less than a twentieth.
- *training*: a step of distillation beside a plain loop and timm's task, and the share of the time that waits for
  images (distill.py); images a second in each precision, and which `auto` takes.
- *memory*: the largest architecture is read while somebody else has nearly all of the GPU's memory: it should give the
  same readings, in smaller chunks.
- *two*: two processes on two GPUs agree by NCCL and share batches; null where there are not two.
- *single calls*: milliseconds of one image and of 64 through a student.

On a machine without a GPU, `--device cpu` tries all but memory, with gloo for NCCL. The result says which device; exit
code 1 where parity, memory or two GPUs are not as they should be. Under ten minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from benchmarks import distill, overhead, scorer
from benchmarks.runner import CONFIG, Record, names_of
from tvt_ray.cli.options import add_options, own_config_of
from tvt_ray.cli.output import print_table
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.latency.measure import Bench
from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.training.learner import WorkerContext
from tvt_ray.training.pace import candidates, device_name

TOLERANCE = 1e-3  # relative; sums of float32 in another order
WORTH_ANOTHER = 1.05  # of the rate, that twice as many processes should bring
BATCH_SIZES = (1, 64)
KEPT_FREE = 256 * 2**20  # bytes that are left of a GPU whose memory somebody else has


def add(parser: argparse.ArgumentParser) -> None:
    add_options(parser, *CONFIG, "max-params")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the command without a GPU")
    parser.add_argument("--cases", default="autoformer,digits", metavar="A,B")
    parser.add_argument("--num-images", type=int, default=32, metavar="N", help="of the probe")
    parser.add_argument("--num-archs", type=int, default=6, metavar="N", help="whose readings are compared")
    parser.add_argument("--actors", default="1,2,4,8", metavar="A,B", help="processes side by side, in turn")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="that each of those counts reads for")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="of a training")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no GPU here; --device cpu tries the command without one")
    cases = names_of(args.cases, scorer.CASES, "--cases")
    task, inputs = distill.prepare(own_config_of(args), args.steps)
    parts: dict[str, Any] = {"device": device_name(device), "count": torch.cuda.device_count()}
    for case in cases:
        reading = scorer.make_task(case, args.num_images, "float32")
        parts[f"parity {case}"] = record.once(f"parity-{case}", parity, reading, device, args.num_archs)
        one = argparse.Namespace(device=args.device, num_images=args.num_images, num_archs=args.num_archs)
        parts[f"reading {case}"] = record.once(f"reading-{case}", scorer.time_case, case, "float32", one)
        parts[f"actors {case}"] = record.once(f"actors-{case}", rates, case, args)
        parts[f"memory {case}"] = record.once(f"memory-{case}", with_little_memory, reading, device)
    parts["training"] = record.once("training", distill.time_steps, task, inputs, device)
    parts["precisions"] = record.once("precisions", precisions, task, inputs, device)
    parts["two"] = record.once("two", two, task, inputs, device.type)
    parts["single calls"] = record.once("single-calls", single_calls, task, device)
    return {**parts, "wrong": wrong(parts)}


def parity(task: ReadingTask, device: torch.device, num_archs: int) -> dict[str, float]:
    """By proxy, the largest relative difference between this device's reading and the CPU's."""
    task = dataclasses.replace(task, proxies=tuple(PROXIES))
    rng = random.Random(0)
    here, there = Reader(task, device), Reader(task, "cpu")
    off = dict.fromkeys(task.proxies, 0.0)
    for arch in (task.space.sample(rng) for _ in range(num_archs)):
        ours, theirs = here.readings(arch), there.readings(arch)
        off = {name: max(off[name], relative(ours[name], theirs[name])) for name in off}
    return off


def relative(one: float, other: float) -> float:
    """Of two numbers, the difference in terms of the larger."""
    return abs(one - other) / max(abs(one), abs(other), 1e-12)


def rates(case: str, args: argparse.Namespace) -> dict[str, float]:
    """Architectures a second by number of processes side by side, up to where more bring little."""
    found: dict[str, float] = {}
    for count in map(int, args.actors.split(",")):
        before = max(found.values(), default=0.0)
        found[str(count)] = overhead.plain_rate(case, args.num_images, count, args.device, args.seconds)
        if found[str(count)] < WORTH_ANOTHER * before:
            break
    return found


def with_little_memory(task: ReadingTask, device: torch.device) -> dict[str, Any] | None:
    """Readings of the largest architecture, of all of the probe at once and with most memory taken; None on a CPU."""
    if device.type != "cuda":
        return None
    arch = task.space.largest_arch(task.num_classes)
    free = Reader(task, device).readings(arch)
    torch.cuda.empty_cache()
    taken = torch.empty(max(torch.cuda.mem_get_info(device)[0] - KEPT_FREE, 0), dtype=torch.uint8, device=device)
    try:
        tight = Reader(task, device).readings(arch)
    finally:
        del taken
        torch.cuda.empty_cache()
    return {"off": max(relative(free[name], tight[name]) for name in free)}


def precisions(task: DistillTask, inputs: DistillInputs, device: torch.device) -> dict[str, Any]:
    """Images a second of an epoch in each precision that the device is made for, and which one `auto` takes."""
    found: dict[str, Any] = {}
    for dtype in candidates(device):
        amp = "off" if dtype is None else str(dtype).removeprefix("torch.")
        found[amp] = epoch(dataclasses.replace(task, settings=task.settings.with_(amp=amp)), inputs, device)[0]
    rate, precision = epoch(dataclasses.replace(task, settings=task.settings.with_(amp="auto")), inputs, device)
    return {"images_per_s": {**found, "auto": rate}, "auto": precision}


def epoch(task: DistillTask, inputs: DistillInputs, device: torch.device) -> tuple[float, str]:
    """Images a second, and the precision."""
    cohort = Cohort([task], inputs, WorkerContext(device))
    (metrics,) = cohort.run_epoch().values()
    (learner,) = cohort.learners.values()
    return metrics["images_per_s"], str(learner.precision or torch.float32).removeprefix("torch.")


def two(task: DistillTask, inputs: DistillInputs, kind: str) -> dict[str, Any] | None:
    """Two processes on two devices: what they agree on, and images a second of an epoch that they share."""
    if kind == "cuda" and torch.cuda.device_count() < 2:
        return None
    answers = distill.side_by_side(one_of_two, 2, kind, task, inputs)
    sums, speeds = zip(*answers, strict=True)
    return {"sum": sums[0], "agree": sums[0] == sums[1] == 3.0, "images_per_s": min(speeds)}


def one_of_two(
    rank: int, world_size: int, meeting: str, answers: Any, kind: str, task: DistillTask, inputs: DistillInputs
) -> None:
    """A process with a device of its own."""
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=world_size)
    number = torch.tensor([1.0 + rank], device=device)
    dist.all_reduce(number)
    context = WorkerContext(device, rank, world_size, torch.nn.parallel.DistributedDataParallel)
    (metrics,) = Cohort([task], inputs, context).run_epoch().values()
    answers.put((float(number), metrics["images_per_s"]))
    dist.destroy_process_group()


def single_calls(task: DistillTask, device: torch.device) -> dict[str, float]:
    """Milliseconds of a batch through a student, by its size."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    benches = {size: Bench(kind, 1, size) for size in BATCH_SIZES}
    return {str(size): each.student_ms(task.space, task.arch, task.num_classes) for size, each in benches.items()}


def wrong(parts: Mapping[str, Any]) -> list[str]:
    """What is not as it should be."""
    found = []
    for name, part in parts.items():
        if name.startswith("parity"):
            found += [f"{name}: {proxy} is off by {off:.2g}" for proxy, off in part.items() if not off < TOLERANCE]
        elif name.startswith("memory") and part and not part["off"] < TOLERANCE:
            found.append(f"{name}: readings are off by {part['off']:.2g}")
    if parts["two"] and not parts["two"]["agree"]:
        found.append(f"two: the sum of 1 and 2 is {parts['two']['sum']:g} on one of them")
    return found


def show(result: Mapping[str, Any]) -> None:
    rows = []
    for name, part in result.items():
        if name.startswith("parity"):
            proxy = max(part, key=part.get)
            rows.append([name, f"largest difference {part[proxy]:.1e}, {proxy}"])
        elif name.startswith("reading"):
            rows.append([name, f"{1 / part['seconds_per_arch']:,.0f} a second, {part['gemm_share']:.2f} of the peak"])
        elif name.startswith("actors"):
            rows.append([name, ", ".join(f"{count}: {rate:,.0f} a second" for count, rate in part.items())])
        elif name.startswith("memory"):
            rows.append([name, f"off by {part['off']:.1e}" if part else "not tried"])
    times = result["training"]
    against = ", ".join(f"{way} {times[way] / times['cohort']:.2f} times" for way in ("plain loop", "timm"))
    rows.append(["a step of distillation", f"{against} this package's; waits for {100 * times['wait']:.0f} %"])
    speeds = result["precisions"]["images_per_s"].items()
    rows.append(["precision", ", ".join(f"{name}: {rate:,.0f} images/s" for name, rate in speeds)])
    both = result["two"]
    rows.append(["two", f"{both['images_per_s']:,.0f} images/s" if both else "there are not two"])
    rows.append(["one image, 64", ", ".join(f"{each:.1f} ms" for each in result["single calls"].values())])
    print_table(f"{result['device']} ({'; '.join(result['wrong']) or 'as it should be'})", ["", ""], rows, num_texts=2)


def failed(result: Mapping[str, Any]) -> bool:
    return bool(result["wrong"])
