"""Limits on what an architecture may cost, applied to those of a space; and counts as people write them."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from tvt_ray.strict import Strict
from tvt_ray.vits.space import Arch, Space

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def parse_count(value: Any) -> Any:
    """Reads 6M, 1.5G, 300k or a plain number as a count; anything else passes through for pydantic to refuse."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmgb]?)\s*", value.lower())
        if not match:
            raise ValueError(f"a count is a number with an optional k, M or G, as in 6M or 1.5G; got {value!r}")
        return round(float(match[1]) * _SUFFIXES[match[2]])
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


def format_count(count: float) -> str:
    """12345678 -> '12.3M'."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if float(f"{count:.3g}") >= limit:
            return f"{count / limit:.3g}{suffix}" if count < 1e3 * limit else f"{count / limit:.0f}{suffix}"
    return f"{count:.0f}"


def _absolute(path: Path) -> Path:
    """The same file from whichever folder the run goes on."""
    with contextlib.suppress(RuntimeError):  # nobody of that name, or nobody with a home
        path = path.expanduser()
    return path.absolute()


Count = Annotated[int, BeforeValidator(parse_count), Field(ge=0)]


class Budget(Strict):
    """Limits on parameters, FLOPs (multiply-accumulates for one image) and latency, ends included; None is no limit."""

    min_params: Count | None = None  # parameters, as in 1M
    max_params: Count | None = None  # parameters, as in 6M
    min_flops: Count | None = None  # multiply-accumulates for one image, as in 300M
    max_flops: Count | None = None  # multiply-accumulates for one image, as in 1.5G
    # milliseconds for a batch, as a device profile predicts (docs/latency.md)
    max_latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    latency_batch_size: PositiveInt = 1  # images in that batch; one that the profile was measured with
    # the profile's file; None: the one that was measured on this machine for this space
    latency_profile: Annotated[Path, AfterValidator(_absolute)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Budget:
        for name in ("params", "flops"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} {low} is above max_{name} {high}")
        return self

    def admits(self, params: int, flops: int) -> bool:
        """Whether both are inside; `Limits` says it of latency too."""
        return _within(params, self.min_params, self.max_params) and _within(flops, self.min_flops, self.max_flops)

    def __str__(self) -> str:
        counts = self.model_dump(exclude_none=True, include={"min_params", "max_params", "min_flops", "max_flops"})
        parts = [f"{name} {count:,}" for name, count in counts.items()]
        if self.max_latency_ms is not None:
            parts.append(f"max_latency_ms {self.max_latency_ms:g} for a batch of {self.latency_batch_size}")
        return ", ".join(parts) or "no budget"


def _within(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


@dataclass(frozen=True)
class Limits:
    """A budget with all that says whether an architecture is inside: costs by arithmetic, latency by a prediction."""

    space: Space
    budget: Budget
    num_classes: int
    latency_ms: Callable[[Arch], float] | None = None  # predicted; there where the budget limits it

    def __post_init__(self) -> None:
        if self.budget.max_latency_ms is not None and self.latency_ms is None:
            raise ValueError(f"max_latency_ms {self.budget.max_latency_ms:g} needs something that predicts latencies")

    def admit(self, arch: Arch) -> bool:
        """Whether an architecture of the space is inside."""
        if not self.budget.admits(*self.space.cost(arch, self.num_classes)):
            return False
        limit = self.budget.max_latency_ms
        return limit is None or self.latency_ms is None or self.latency_ms(arch) <= limit
