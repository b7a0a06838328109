"""Latency: measures a device once, and checks on it what a search chose."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tvt_ray.errors import UsageError
from tvt_ray.latency.measure import NUM_ROUNDS, Bench, in_rounds, measure_profile
from tvt_ray.latency.profile import DeviceProfile, default_path, this_device
from tvt_ray.progress import Meter, say
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import Choice
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.scoring.ranking import Entry
from tvt_ray.storage.locations import check_writable
from tvt_ray.vits.budget import Limits

TOLERANCE = 0.1  # by which a measurement may exceed the limit without a word: predictions are about as good


@dataclass(frozen=True)
class Latency:
    """Of one architecture, in milliseconds for a batch."""

    predicted_ms: float
    measured_ms: float | None = None  # None: this machine is another than the profile's


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


def check_chosen(chosen: Iterable[Entry], limits: Limits, profile: DeviceProfile) -> Mapping[str, Latency]:
    """Latencies of the chosen by id, really measured where this machine is the profile's.

    One line says which exceed the limit by more than 10 %, or that none was measured.
    """
    budget, space = limits.budget, limits.space
    assert limits.latency_ms is not None
    assert budget.max_latency_ms is not None
    archs = {each.row.arch_id: space.from_json(each.row.arch) for each in chosen}
    predicted = {arch_id: round(limits.latency_ms(arch), 4) for arch_id, arch in archs.items()}
    if not _is_here(profile):
        say(f"latency: predicted for {profile.device}, which this machine is not; nothing was measured")
        return {arch_id: Latency(ms) for arch_id, ms in predicted.items()}
    bench = Bench(profile.device.kind, profile.threads, budget.latency_batch_size)
    with process_as_it_was(), Meter("latency", NUM_ROUNDS * len(archs), "measurements") as meter:
        timed = [functools.partial(bench.student_ms, space, arch, limits.num_classes) for arch in archs.values()]
        times = in_rounds(timed, lambda: meter.advance(1))
    found = {i: Latency(ms, round(time, 4)) for (i, ms), time in zip(predicted.items(), times, strict=True)}
    _tell_of_slow(found, budget.max_latency_ms)
    return found


def with_latency(choice: Choice, latency: Latency | None) -> Choice:
    """The choice with what is known of it."""
    if latency is None:
        return choice
    return dataclasses.replace(choice, latency_ms=latency.measured_ms, predicted_latency_ms=latency.predicted_ms)


def _is_here(profile: DeviceProfile) -> bool:
    try:
        return this_device(profile.device.kind) == profile.device
    except UsageError:
        return False


def _tell_of_slow(found: Mapping[str, Latency], limit_ms: float) -> None:
    slow = {i: each for i, each in found.items() if (each.measured_ms or 0) > limit_ms * (1 + TOLERANCE)}
    if not slow:
        return
    worst = max(slow, key=lambda arch_id: slow[arch_id].measured_ms or 0)
    say(
        f"latency: {len(slow)} of the {len(found)} that were measured exceed {limit_ms:g} ms by more than "
        f"{TOLERANCE:.0%}, most of all {worst}: {slow[worst].measured_ms:.3g} ms, predicted "
        f"{slow[worst].predicted_ms:.3g}; where the machine was busy, measure again, else profile it anew"
    )
