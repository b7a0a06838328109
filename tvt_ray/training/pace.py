"""How a training's CPUs are divided between loading images and computing."""

from __future__ import annotations

from dataclasses import dataclass

# What t threads make of a student's small matrices: t^0.7 times as fast as one (1.6 times for two).
THREAD_SCALING = 0.7


@dataclass(frozen=True)
class Pace:
    """Seconds that a batch takes on one thread: to load and augment, and to train on."""

    load_s: float
    step_s: float
    on_gpu: bool = False


@dataclass(frozen=True)
class Division:
    """CPUs that load images, a process each (0: the trainer loads between steps), and threads that compute."""

    loader_workers: int
    threads: int


def divide(cpus: int, pace: Pace) -> Division:
    """The division in which a step takes least. Nothing but the time depends on it."""
    divisions = [Division(loaders, max(1, cpus - loaders)) for loaders in range(max(1, cpus))]
    return min(divisions, key=lambda division: step_seconds(division, pace))


def step_seconds(division: Division, pace: Pace) -> float:
    """What a step takes, images included."""
    computing = pace.step_s if pace.on_gpu else pace.step_s / division.threads**THREAD_SCALING
    if division.loader_workers == 0:
        return pace.load_s + computing
    return max(pace.load_s / division.loader_workers, computing)
