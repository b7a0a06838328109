"""How many architectures a second one driver takes from a thousand workers, and what each costs it.

python -m benchmarks crowd [--num-workers 1000] [--seconds-each 0.02] [--num-samples 100000] [--num-hosts 2]

The driver is a search's own, Tune's loop and Ray's calls among it. The workers are stood in for: each is a trial with a
placement group of one CPU, as any, but its actor is a place in one of a few processes, which keep a batch for as long
as its architectures would take a GPU and answer as workers do. What is read is nothing, and the score is the number of
parameters.

`archs_per_s`: rows over the time, once all workers had come; `offered_per_s`: what they would read if the driver cost
nothing; `driver_ms`: the driver process's own CPU milliseconds an architecture meanwhile, so that 1,000 / `driver_ms`
is the rate at which it fills a core; `driver_mib`: its resident memory; `start_s`: until all workers had come.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager

from benchmarks import scale
from benchmarks.runner import Record
from tvt_ray.cli.output import print_table
from tvt_ray.cluster.scoring import run_workers
from tvt_ray.cluster.slots import Job, Slots
from tvt_ray.errors import RunError
from tvt_ray.runs.folder import RunFolder
from tvt_ray.searchers.batching import Dispatcher


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-workers", type=int, default=1000, metavar="N")
    parser.add_argument("--seconds-each", type=float, default=0.02, metavar="S", help="of a worker for an architecture")
    parser.add_argument("--num-samples", type=int, default=100_000, metavar="N")
    parser.add_argument("--num-hosts", type=int, default=2, metavar="N", help="processes that answer")


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    return record.once("crowd", search, args)


def search(args: argparse.Namespace) -> dict[str, float]:
    crowd = Crowd(args.num_workers, args.num_hosts, args.seconds_each)
    settings = argparse.Namespace(num_samples=args.num_samples, searcher="random", archs_per_trial=None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch))
        start = time.perf_counter()
        watched = scale.search(settings, folder, crowd.run, Marked)
        unique = len({row.arch_id for row in folder.rows().read()})
    if unique != args.num_samples:
        raise RunError(f"{unique:,} different architectures are on disk, {args.num_samples:,} were asked for")
    marks = watched.marks
    first = max(2, sum(mark.num_rows <= crowd.rows_when_complete for mark in marks))
    if first >= len(marks):
        raise RunError("all was read before all workers had come: ask for more --num-samples")
    cost, _ = scale.cost_ms(marks, marks[first - 1].num_rows, marks[-1].num_rows)
    found = {
        "num_workers": args.num_workers,
        "num_samples": args.num_samples,
        "start_s": (crowd.complete or start) - start,
        "archs_per_s": crowd.rate(watched.num_rows),
        "offered_per_s": args.num_workers / args.seconds_each,
        "driver_ms": cost,
        "driver_mib": marks[-1].resident / 2**20,
    }
    return {name: round(value, 3) for name, value in found.items()}


class Marked(scale.Watched):
    """Notes the driver's CPU time and memory, and does nothing else."""

    paced = False


class Host:
    """A process that answers for many workers."""

    def __init__(self, seconds_each: float) -> None:
        self.seconds_each, self.batches = seconds_each, dict[int, tuple[Any, float]]()

    async def call(self, number: int, method: str, *args: Any) -> Any:
        """What a worker's actor answers: see ScoringTrial."""
        if method == "take":
            self.batches[number] = args
        if method != "train":
            return None
        archs, idle_s = self.batches.pop(number, (None, 0.0))
        await asyncio.sleep(idle_s if archs is None else self.seconds_each * len(archs))
        said: dict[str, Any] = {"worker": f"host/{number}", "training_iteration": 1, "time_this_iter_s": 0.0}
        if archs is not None:
            said |= {"measured": tuple(({}, None, self.seconds_each, "") for _ in archs), "ended": time.time()}
        return said


class StandIn:
    """As the handle of a worker's actor: any method of it, answered by its host."""

    def __init__(self, host: Any, number: int) -> None:
        self._host, self._number = host, number

    def __getattr__(self, method: str) -> Any:
        return _Method(self._host, self._number, method)


@dataclass(frozen=True)
class _Method:
    host: Any
    number: int
    name: str

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """A reference to the answer."""
        return self.host.call.remote(self.number, self.name, *args)


class Crowd:
    """Stand-ins for a search's workers, and when they had come."""

    def __init__(self, num_workers: int, num_hosts: int, seconds_each: float) -> None:
        self.num_workers, self.num_hosts, self.seconds_each = num_workers, num_hosts, seconds_each
        self.complete: float | None = None  # time.perf_counter() when all workers had come
        self.last, self.rows_when_complete = 0.0, 0

    def rate(self, num_rows: int) -> float:
        """Architectures a second, once all workers had come."""
        return (num_rows - self.rows_when_complete) / (self.last - (self.complete or 0.0))

    def run(self, dispatcher: Dispatcher) -> None:
        """The search's own loop."""
        ray.init("local", num_cpus=self.num_workers + self.num_hosts, include_dashboard=False, log_to_driver=False)
        try:
            made = ray.remote(num_cpus=0, max_concurrency=10_000)(Host)
            hosts = [made.remote(self.seconds_each) for _ in range(self.num_hosts)]
            with self._standing_in(hosts, dispatcher):
                slots = Slots(self.num_workers, 0, self.num_workers)
                run_workers(Job(dispatcher.task, ray.put(dispatcher.task), slots), dispatcher)
            self.last = time.perf_counter()
        finally:
            ray.shutdown()

    @contextlib.contextmanager
    def _standing_in(self, hosts: list[Any], dispatcher: Dispatcher) -> Iterator[None]:
        """Within the block Tune's actors are stand-ins."""
        started, original, crowd = iter(range(10**9)), RayActorManager._try_start_actors, self

        def start(manager: Any, max_actors: int | None = None) -> int:
            count = 0
            for request, waiting in list(manager._resource_request_to_pending_actors.items()):
                while waiting and manager._resource_manager.has_resources_ready(request):
                    if max_actors is not None and count >= max_actors:
                        return count
                    acquired = manager._resource_manager.acquire_resources(request)
                    tracked, number = waiting.pop(0), next(started)
                    manager._pending_actors_to_attrs.pop(tracked)
                    actor = StandIn(hosts[number % len(hosts)], number)
                    manager._live_actors_to_ray_actors_resources[tracked] = (actor, acquired)
                    manager._live_resource_cache = None
                    _track_start(manager, tracked, actor.__ray_ready__.remote())
                    manager._enqueue_cached_actor_tasks(tracked_actor=tracked)
                    count += 1
                    crowd._note(number + 1, dispatcher)
            return count

        RayActorManager._try_start_actors = start
        try:
            yield
        finally:
            RayActorManager._try_start_actors = original

    def _note(self, count: int, dispatcher: Dispatcher) -> None:
        if count >= self.num_workers and self.complete is None:
            self.complete, self.rows_when_complete = time.perf_counter(), dispatcher.recorder.num_rows


def _track_start(manager: Any, tracked: Any, future: Any) -> None:
    manager._tracked_actors_to_state_futures[tracked].add(future)
    manager._actor_state_events.track_future(
        future=future,
        on_result=lambda result: manager._actor_start_resolved(tracked_actor=tracked, future=future),
        on_error=lambda error: manager._actor_start_failed(tracked_actor=tracked, exception=error),
    )


def show(result: Mapping[str, Any]) -> None:
    units = {
        "archs_per_s": "architectures a second",
        "offered_per_s": "would be, if the driver cost nothing",
        "driver_ms": "ms of the driver's own CPU time for each",
        "driver_mib": "MiB of the driver at the end",
        "start_s": "s until all workers had come",
    }
    rows = [[name, f"{result[name]:,.2f}", unit] for name, unit in units.items()]
    title = f"one driver, {result['num_workers']:,} workers, {result['num_samples']:,} architectures"
    print_table(title, ["", "", ""], rows, num_texts=1)
