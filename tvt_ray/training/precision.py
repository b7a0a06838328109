"""Mixed precision: which one a model trains in, and what that takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch

from tvt_ray.training.pace import finished
from tvt_ray.vits.kernels import HAS_BF16

Amp = Literal["off", "auto", "bfloat16", "float16"]
NUM_TIMED = 3
WORTH_IT = 0.95  # of the time in float32 that mixed precision may take to be chosen


def candidates(device: torch.device) -> list[torch.dtype | None]:
    """What `auto` chooses from: float32 (None), and the precision that the device has instructions for, if any.

    A processor without them computes in bfloat16 all the same, many times slower: too slow to be tried.
    """
    if device.type == "cpu" and not HAS_BF16:
        return [None]
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return [None, torch.float16]
    return [None, torch.bfloat16]


def choose_precision(amp: Amp, device: torch.device, step: Callable[[], None]) -> torch.dtype | None:
    """The type that `torch.autocast` is given, None for float32.

    `auto` times `step` (forward and backward) in each that the device is made for.
    """
    if amp == "off":
        return None
    if amp != "auto":
        return torch.bfloat16 if amp == "bfloat16" else torch.float16
    possible = candidates(device)
    seconds = [_seconds(dtype, device, step) for dtype in possible]
    return possible[-1] if seconds[-1] < WORTH_IT * seconds[0] else None


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Computes in `dtype` what can be, within the block."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _seconds(dtype: torch.dtype | None, device: torch.device, step: Callable[[], None]) -> float:
    """Of the fastest of some steps, after one that warms up."""
    times = []
    for _ in range(1 + NUM_TIMED):
        start = time.perf_counter()
        with autocast(dtype, device):
            step()
        times.append(finished(device) - start)
    return min(times[1:])
