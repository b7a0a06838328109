"""A device profile: what was measured once, and the numbers that predict from it. One JSON file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location, cache_folder, first_line, write_atomically
from tvt_ray.strict import Strict, parse_json
from tvt_ray.vits import Space, SpaceField

DeviceKind: TypeAlias = Literal["cpu", "cuda"]
KINDS: tuple[DeviceKind, ...] = ("cpu", "cuda")
FORMAT: Literal[1] = 1


class Device(Strict):
    """A processor or a GPU; two of equal fields are taken to be equally fast."""

    kind: DeviceKind
    name: str
    cores: PositiveInt  # of the machine

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.cores} cores)"


def this_device(kind: str) -> Device:
    """This machine's. Raises UsageError for a kind that is unknown, or that this machine lacks."""
    if kind not in KINDS:
        raise UsageError(f"a latency is measured on one of {', '.join(KINDS)}; got {kind!r}")
    cores = os.cpu_count() or 1
    if kind == "cpu":
        return Device(kind="cpu", name=_cpu_name(), cores=cores)
    if not torch.cuda.is_available():
        raise UsageError("this machine has no CUDA device that PyTorch can use; choices: cpu")
    return Device(kind="cuda", name=torch.cuda.get_device_name(), cores=cores)


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """As the processor calls itself where the system says so (Linux), else what Python knows."""
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "cpu model"))]
    return next(filter(None, names), platform.processor() or platform.machine() or "unknown")


class MeasuredPart(Strict):
    """A part, by kind and sizes, and the milliseconds that it takes."""

    kind: str
    sizes: tuple[int, ...]
    ms: PositiveFloat


class PartFit(Strict):
    """What a part of a kind takes that was not measured: a sum of these, each times what the part has of it."""

    ms: NonNegativeFloat  # whatever its size
    ms_per_mflop: NonNegativeFloat  # a million multiply-accumulates for one image
    ms_per_mparam: NonNegativeFloat  # a million weights
    ms_per_mvalue: NonNegativeFloat  # a million numbers read and written for one image


class WholeFit(Strict):
    """What a student takes: a sum of these, each times what it has of it."""

    ms: NonNegativeFloat  # whatever the student
    per_parts_ms: NonNegativeFloat  # times the sum of its parts


class Error(Strict):
    """How far predictions were from measurements: |predicted - measured| / measured."""

    num: PositiveInt  # things compared
    median: NonNegativeFloat
    worst: NonNegativeFloat


class BatchProfile(Strict):
    """What was measured with one batch size, and what predicts from that."""

    batch_size: PositiveInt
    parts: tuple[MeasuredPart, ...]
    fits: dict[str, PartFit]  # by kind of part
    fit_error: Error  # of the fits, on the parts that they were fitted to
    whole: WholeFit
    error: Error  # of predictions, on whole students that nothing was fitted to
    students_ms: tuple[PositiveFloat, PositiveFloat]  # the fastest and the slowest that was measured


class DeviceProfile(Strict):
    """What `tvt profile` writes."""

    format: Literal[1] = FORMAT
    backend: Literal["torch"] = "torch"  # what runs the students: eager PyTorch
    device: Device
    threads: PositiveInt  # of PyTorch on the CPU
    torch: str  # version
    space: SpaceField
    batches: tuple[BatchProfile, ...]

    def batch(self, size: int) -> BatchProfile:
        """Raises UsageError for a batch size that was not measured."""
        for batch in self.batches:
            if batch.batch_size == size:
                return batch
        sizes = ", ".join(str(batch.batch_size) for batch in self.batches)
        raise UsageError(f"the latency profile has no batch size {size}; choices: {sizes}, or profile anew")

    def check_space(self, space: Space, name: object) -> None:
        """Raises UsageError where it is of another space, with the first setting that differs. `name`: of its file."""
        mine, theirs = self.space.model_dump(mode="json"), space.model_dump(mode="json")
        changed = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
        if changed:
            key = "name" if "name" in changed else min(changed)
            what = f"space.{key} is {mine.get(key)} there and {theirs.get(key)} here"
            raise UsageError(f"the latency profile {name} is of another space: {what}")

    def save(self, path: Location) -> None:
        """As JSON. Raises RunError where it cannot be written."""
        write_atomically(path, self.model_dump_json(indent=1).encode())


def load_profile(path: Location) -> DeviceProfile:
    """Raises UsageError where there is none, or it is damaged or of another version."""
    try:
        values: Any = parse_json(path.read_bytes())
        found = values.get("format") if isinstance(values, Mapping) else None
        if found != FORMAT:
            raise UsageError(f"{path} is no latency profile of format {FORMAT} (found: {found}); make one: tvt profile")
        return DeviceProfile.model_validate(values)
    except FileNotFoundError:
        raise UsageError(f"there is no latency profile {path}; tvt profile makes one") from None
    except (OSError, ValidationError, ValueError) as error:
        raise UsageError(
            f"the latency profile {path} is damaged ({_problem(error)}); make it anew: tvt profile"
        ) from None


def _problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return first_line(error)
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def default_path(device: Device, space: Space) -> Path:
    """Where the profile of a device and a space is kept, in the user's cache."""
    key = json.dumps([device.model_dump(), space.identifying()], sort_keys=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{device.kind}-{device.name}").strip("-")[:60]
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return cache_folder() / "latency" / f"{name}-{space.name}-{digest}.json"
