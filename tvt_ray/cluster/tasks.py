"""Reading a given list of architectures, as plain Ray tasks: what `tvt rank` needs, and no searcher."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch

from tvt_ray.cluster.slots import Job, pick_device
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.scoring.rows import Row
from tvt_ray.vits import Arch

MAX_ARCHS_PER_TASK = 16  # so that what a killed call had read is not lost
MIN_TASKS_PER_SLOT = 4  # so that the last ones end at about the same time


@ray.remote  # type: ignore[untyped-decorator]
def _read_chunk(task: ReadingTask, archs: Sequence[Mapping[str, Any]]) -> list[Row]:
    torch.set_num_threads(1)
    load_plugins(task.plugins)
    return Reader(task, pick_device()).read_all([task.space.from_json(arch) for arch in archs])


def read_archs(
    job: Job,
    archs: Sequence[Arch],
    title: str = "calibrating",
    on_rows: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Reads a given list of architectures on all slots, as plain Ray tasks: their rows, in the list's order.

    `on_rows` hears of rows as they arrive, in the order in which they do.
    """
    space, slots = job.task.space, job.slots
    size = spread(len(archs), slots.count)
    chunks = [[space.to_json(a) for a in archs[i : i + size]] for i in range(0, len(archs), size)]
    remote = _read_chunk.options(num_cpus=1, num_gpus=slots.gpus_each)
    waiting, running = deque(enumerate(chunks)), dict[Any, int]()
    rows: dict[int, list[Row]] = {}
    with Meter(title, len(archs), "architectures") as meter:
        while waiting or running:
            while waiting and len(running) < slots.count:
                number, chunk = waiting.popleft()
                running[remote.remote(job.task_ref, chunk)] = number
            for ref in ray.wait(list(running))[0]:
                number = running.pop(ref)
                rows[number] = ray.get(ref)
                on_rows(rows[number])
                meter.advance(len(rows[number]))
    return [row for number in sorted(rows) for row in rows[number]]


def spread(count: int, slots: int) -> int:
    """Architectures at a time, of `count` whose cost is not known yet, that keep all slots busy to the end."""
    return min(math.ceil(count / (MIN_TASKS_PER_SLOT * slots)), MAX_ARCHS_PER_TASK)
