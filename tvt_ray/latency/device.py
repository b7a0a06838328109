"""Which device this is, as far as times depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from pydantic import PositiveInt

from tvt_ray.errors import UsageError
from tvt_ray.strict import Strict

DeviceKind: TypeAlias = Literal["cpu", "cuda"]
KINDS: tuple[DeviceKind, ...] = ("cpu", "cuda")

_CPUINFO = Path("/proc/cpuinfo")


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


def _cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """As the processor calls itself where the system says so (Linux), else what Python knows."""
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "cpu model"))]
    return next(filter(None, names), platform.processor() or platform.machine() or "unknown")
