"""Files of trained accuracies, a line per architecture."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvt_ray.errors import UsageError
from tvt_ray.evaluation.agreement import Floats
from tvt_ray.spaces import SPACES, Arch, Space, parse_space

ACCURACY_SUFFIX = "_acc"
PARAMS_PREFIX = "params"


@dataclass(frozen=True)
class Trained:
    """One line of a ground-truth file."""

    arch: Arch
    arch_id: str
    params: int  # as the file gives them, else by arithmetic
    accuracies: Mapping[str, float]  # percent, by the file's column names


@dataclass(frozen=True)
class GroundTruth:
    """The lines of one space; every accuracy column is there for every architecture."""

    space: Space
    entries: tuple[Trained, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the accuracy columns."""
        return tuple(self.entries[0].accuracies)

    def accuracy(self, column: str) -> Floats:
        """Of every entry, in percent: (n,)."""
        return np.array([entry.accuracies[column] for entry in self.entries])

    def within(self, min_params: int | None, max_params: int | None) -> NDArray[np.bool_]:
        """Which entries lie inside a band of parameters, both ends included."""
        params = np.array([entry.params for entry in self.entries])
        return (params >= (min_params or 0)) & (params <= (math.inf if max_params is None else max_params))


def read_ground_truth(path: Path, configured: Space, num_classes: int) -> list[GroundTruth]:
    """Reads JSON lines: `space`, `arch`, and one or more accuracy columns named *_acc.

    Lines belong to the configured space if it holds all their architectures, else to the published space of that name.
    Raises UsageError that names the line and what is wrong with it.
    """
    if not path.is_file():
        raise UsageError(f"there is no ground-truth file {path}")
    by_space: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.strip():
            where = f"{path}, line {number}"
            line = _parse(text, where)
            by_space.setdefault(_space_name(line, configured, where), []).append((where, line))
    if not by_space:
        raise UsageError(f"{path} has no lines")
    return [_read_space(name, lines, configured, num_classes) for name, lines in by_space.items()]


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}") from None
    if not isinstance(line, dict) or not isinstance(line.get("arch"), dict):
        raise UsageError(
            f"{where}: a line is an object with the keys space, arch and accuracies named *{ACCURACY_SUFFIX}"
        )
    return line


def _space_name(line: Mapping[str, Any], configured: Space, where: str) -> str:
    name = line.get("space", configured.name)
    if not isinstance(name, str) or name not in SPACES:
        raise UsageError(f"{where}: unknown search space {name!r}; choices: {', '.join(SPACES)}")
    return name


def _read_space(
    name: str, lines: Sequence[tuple[str, dict[str, Any]]], configured: Space, num_classes: int
) -> GroundTruth:
    published = parse_space({"name": name})
    problem: UsageError | None = None
    for space in (configured, published) if configured.name == name else (published,):
        try:
            entries = [_read_entry(where, line, space, num_classes) for where, line in lines]
        except UsageError as error:
            problem = problem or error
            continue
        _check_columns(entries, lines)
        return GroundTruth(space, tuple(entries))
    assert problem is not None
    raise problem


def _read_entry(where: str, line: Mapping[str, Any], space: Space, num_classes: int) -> Trained:
    try:
        arch = space.from_json(line["arch"])
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from None
    accuracies = {
        key: float(value)
        for key, value in line.items()
        if key.endswith(ACCURACY_SUFFIX) and isinstance(value, numbers.Real) and math.isfinite(value)
    }
    given = [v for key, v in line.items() if key.startswith(PARAMS_PREFIX) and isinstance(v, int | float)]
    params = int(given[0]) if given else space.cost(arch, num_classes).params
    return Trained(arch, space.arch_id(arch), params, accuracies)


def _check_columns(entries: Sequence[Trained], lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    first = entries[0].accuracies.keys()
    if not first:
        raise UsageError(f"{lines[0][0]} has no accuracy: a column named *{ACCURACY_SUFFIX}, in percent")
    for entry, (where, _) in zip(entries, lines, strict=True):
        if entry.accuracies.keys() != first:
            missing = sorted(first ^ entry.accuracies.keys())
            raise UsageError(f"{where}: all lines have the same accuracy columns; {missing[0]} is not in all")
    seen: dict[str, str] = {}
    for entry, (where, _) in zip(entries, lines, strict=True):
        if entry.arch_id in seen:
            raise UsageError(f"{where} repeats the architecture of {seen[entry.arch_id]}")
        seen[entry.arch_id] = where


@dataclass(frozen=True)
class Scored:
    """The architectures of one space with their accuracies and, by proxy, their scores (seeds, n)."""

    truth: GroundTruth
    scores: Mapping[str, Floats]
