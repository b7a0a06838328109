"""What a proxy is: a function of a student and the probe, and what it needs to be there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student

Readings: TypeAlias = Mapping[str, float]  # by name

# What a proxy reads beside the student's weights, each including what is before it.
Needs: TypeAlias = Literal["weights", "images", "teacher"]


@dataclass(frozen=True)
class Proxy:
    """A row of PROXIES: gives the reading of its name, and what it needs decides what a run prepares."""

    read: Callable[[Student, Probe], float]
    needs: Needs = "images"
