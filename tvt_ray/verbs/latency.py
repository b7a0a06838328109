"""Latency: measures a device once, and checks on it what a search chose."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from tvt_ray.errors import UsageError
from tvt_ray.latency.measure import NUM_ROUNDS, Bench, in_rounds, measure_profile
from tvt_ray.latency.profile import DeviceProfile, default_path, this_device
from tvt_ray.progress import Meter, say
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import Choice
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.storage.locations import check_writable
from tvt_ray.vits.budget import Limits

TOLERANCE = 0.1  # by which a measurement may exceed the limit without a word: predictions are about as good


def run_profile(
    config: RunConfig, batch_sizes: tuple[int, ...], kind: str, threads: int | None = None, out: Path | None = None
) -> tuple[Path, DeviceProfile]:
    """Measures the config's space on this machine, and where the profile is: `out`, or where searches look for it.

    `kind`: cpu or cuda. `threads`: of PyTorch (None: as many as it takes here). Raises UsageError for what is wrong.
    """
    for name, numbers in (("batch-size", batch_sizes), ("threads", () if threads is None else (threads,))):
        if any(number < 1 for number in numbers):
            raise UsageError(f"--{name} is at least 1; got {min(numbers)}")
    device = this_device(kind)
    path = default_path(device, config.space) if out is None else out
    check_writable(path)
    sizes = tuple(dict.fromkeys(batch_sizes))
    with process_as_it_was():
        profile = measure_profile(config.space, device, threads or torch.get_num_threads(), sizes)
    profile.save(path)
    return path, profile


def check_chosen(chosen: Sequence[Choice], limits: Limits, profile: DeviceProfile) -> dict[str, Choice]:
    """The chosen by id, each once, with their latencies: predicted, and measured where this machine is the profile's.

    One line says which exceed the limit by more than 10 %, or that none was measured.
    """
    budget, space = limits.budget, limits.space
    assert limits.latency_ms is not None
    assert budget.max_latency_ms is not None
    archs = {each.arch_id: space.from_json(each.arch) for each in chosen}
    found = {
        each.arch_id: dataclasses.replace(each, predicted_latency_ms=round(limits.latency_ms(archs[each.arch_id]), 4))
        for each in chosen
    }
    if not _is_here(profile):
        say(f"latency: predicted for {profile.device}, which this machine is not; nothing was measured")
        return found
    bench = Bench(profile.device.kind, profile.threads, budget.latency_batch_size)
    with process_as_it_was(), Meter("latency", NUM_ROUNDS * len(archs), "measurements") as meter:
        timed = [functools.partial(bench.student_ms, space, arch, limits.num_classes) for arch in archs.values()]
        times = in_rounds(timed, lambda: meter.advance(1))
    for arch_id, time in zip(archs, times, strict=True):
        found[arch_id] = dataclasses.replace(found[arch_id], latency_ms=round(time, 4))
    _tell_of_slow(list(found.values()), budget.max_latency_ms)
    return found


def _is_here(profile: DeviceProfile) -> bool:
    try:
        return this_device(profile.device.kind) == profile.device
    except UsageError:
        return False


def _tell_of_slow(found: Sequence[Choice], limit_ms: float) -> None:
    slow = [each for each in found if (each.latency_ms or 0) > limit_ms * (1 + TOLERANCE)]
    if not slow:
        return
    worst = max(slow, key=lambda each: each.latency_ms or 0)
    say(
        f"latency: {len(slow)} of the {len(found)} that were measured exceed {limit_ms:g} ms by more than "
        f"{TOLERANCE:.0%}, most of all {worst.arch_id}: {worst.latency_ms:.3g} ms, predicted "
        f"{worst.predicted_latency_ms:.3g}; where the machine was busy, measure again, else profile it anew"
    )
