"""Files of trained accuracies, a line per architecture."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvt_ray.errors import UsageError
from tvt_ray.judging.agreement import MIN_ARCHS, Floats
from tvt_ray.progress import say
from tvt_ray.refining.features import FeatureTable
from tvt_ray.vits import SPACES, Arch, Space, parse_space

ACCURACY_SUFFIX = "_acc"
PARAMS_PREFIX = "params"
PARAMS_UNITS = (1e3, 1e6)  # in which tables give parameters, beside the plain count


@dataclass(frozen=True)
class Trained:
    """One line of a ground-truth file."""

    arch: Arch
    arch_id: str
    params: int  # as the file counts them; by arithmetic where it does not, or gives thousands or millions
    flops: int  # by arithmetic
    shape: str  # what scores can tell apart
    accuracies: Mapping[str, float]  # percent, by the file's column names
    where: str = ""  # the file and the line


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

    @property
    def params(self) -> NDArray[np.int64]:
        """Of every entry: (n,)."""
        return np.array([entry.params for entry in self.entries])

    @property
    def flops(self) -> NDArray[np.int64]:
        """Of every entry: (n,)."""
        return np.array([entry.flops for entry in self.entries])

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Numbers of the entries' shapes, of which several may be one: (n,)."""
        return np.unique([entry.shape for entry in self.entries], return_inverse=True)[1]

    def within(self, min_params: int | None, max_params: int | None) -> NDArray[np.bool_]:
        """Which entries lie inside a band of parameters, both ends included."""
        return (self.params >= (min_params or 0)) & (self.params <= (math.inf if max_params is None else max_params))

    def check_enough(self, min_params: int | None, max_params: int | None, num_labels: int = 0) -> None:
        """Raises UsageError where the band, less what is labelled, holds too few entries to judge by."""
        inside, name = int(self.within(min_params, max_params).sum()), self.space.name
        if inside < MIN_ARCHS:
            above = "any number of" if max_params is None else f"{max_params:,}"
            raise UsageError(
                f"{inside} of the {len(self.entries)} {name} architectures have {min_params or 0:,} to {above} "
                f"parameters; at least {MIN_ARCHS} are needed"
            )
        if num_labels > inside - MIN_ARCHS:
            raise UsageError(
                f"--labels leaves at least {MIN_ARCHS} architectures to judge by: at most {inside - MIN_ARCHS} of the "
                f"{inside} of {name}; got {num_labels}"
            )


def read_ground_truth(path: Path, configured: Space, num_classes: int) -> list[GroundTruth]:
    """Reads JSON lines: `space`, `arch`, and one or more accuracy columns named *_acc.

    Lines belong to the configured space if it holds all their architectures, else to the published space of that name.
    Raises UsageError that names the line and what is wrong with it.
    """
    if not path.is_file():
        raise UsageError(f"there is no ground-truth file {path}")
    by_space: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for where, line in read_json_lines(path):
        if not isinstance(line, dict) or not isinstance(line.get("arch"), dict):
            raise UsageError(
                f"{where}: a line is an object with the keys space, arch and accuracies named *{ACCURACY_SUFFIX}"
            )
        name = line.get("space", configured.name)
        if not isinstance(name, str) or name not in SPACES:
            raise UsageError(f"{where}: unknown search space {name!r}; choices: {', '.join(SPACES)}")
        by_space.setdefault(name, []).append((where, line))
    if not by_space:
        raise UsageError(f"{path} has no lines")
    return [_read_space(name, lines, configured, num_classes) for name, lines in by_space.items()]


def _read_space(
    name: str, lines: Sequence[tuple[str, Mapping[str, Any]]], configured: Space, num_classes: int
) -> GroundTruth:
    published = parse_space({"name": name})
    problem: UsageError | None = None
    for space in (configured, published) if configured.name == name else (published,):
        try:
            entries = [_read_entry(where, line, space, num_classes) for where, line in lines]
        except UsageError as error:
            problem = problem or error
            continue
        _check_columns(entries)
        _check_repeats(entries)
        scale = {column: _scale(column, entries) for column in entries[0].accuracies}
        percent = ({key: scale[key] * value for key, value in entry.accuracies.items()} for entry in entries)
        pairs = zip(entries, percent, strict=True)
        return GroundTruth(space, tuple(dataclasses.replace(entry, accuracies=own) for entry, own in pairs))
    assert problem is not None
    raise problem


def _read_entry(where: str, line: Mapping[str, Any], space: Space, num_classes: int) -> Trained:
    try:
        arch = space.from_json(line["arch"])
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from None
    cost = space.cost(arch, num_classes)
    params = _read_params(where, line, cost.params)
    accuracies = {key: value for key, value in line.items() if key.endswith(ACCURACY_SUFFIX) and value is not None}
    for key, value in accuracies.items():
        if not _is_number(value) or not 0 <= value <= 100:
            raise UsageError(f"{where}: {key} is {value!r}; an accuracy is a number from 0 to 100, in percent")
    percents = {key: float(value) for key, value in accuracies.items()}
    return Trained(arch, space.arch_id(arch), params, cost.flops, space.shape(arch), percents, where)


def _read_params(where: str, line: Mapping[str, Any], exact: int) -> int:
    """The file's count, which may be of other classes. One in thousands or millions is rounded: `exact` stands for it.

    Raises UsageError for what cannot be the architecture's in any of these.
    """
    given: list[tuple[str, float]] = [(k, v) for k, v in line.items() if k.startswith(PARAMS_PREFIX) and _is_number(v)]
    if not given:
        return exact
    key, value = given[0]
    if 0 < value < 1e15:
        if 1 / 10 < value / exact < 10:
            return round(value)
        if any(1 / 4 < value * unit / exact < 4 for unit in PARAMS_UNITS):
            return exact
    raise UsageError(
        f"{where}: {key} is {value:,}, but the architecture has {exact:,} parameters; give their number, or millions"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_columns(entries: Sequence[Trained]) -> None:
    first = entries[0].accuracies.keys()
    if not first:
        raise UsageError(f"{entries[0].where} has no accuracy: a column named *{ACCURACY_SUFFIX}, in percent")
    for entry in entries:
        if entry.accuracies.keys() != first:
            missing = sorted(first ^ entry.accuracies.keys())
            raise UsageError(f"{entry.where}: all lines have the same accuracy columns; {missing[0]} is not in all")


def _check_repeats(entries: Sequence[Trained]) -> None:
    seen: dict[str, Trained] = {}
    for entry in entries:
        first = seen.setdefault(entry.arch_id, entry)
        if first is not entry:
            same = "the same" if first.accuracies == entry.accuracies else "other"
            raise UsageError(
                f"{entry.where} repeats the architecture of {first.where}, with {same} accuracies; keep one of them, "
                "or their mean"
            )


def _scale(column: str, entries: Sequence[Trained]) -> float:
    """A column of fractions becomes one of percent, which is said. Raises UsageError where a column mixes the two."""
    highest = max(entry.accuracies[column] for entry in entries)
    fraction = next((entry for entry in entries if 0 < entry.accuracies[column] < 1), None)
    if fraction is None:
        return 1.0
    found = f"{fraction.where}: {column} is {fraction.accuracies[column]:g}"
    if highest > 1:
        raise UsageError(
            f"{found}, and up to {highest:g} in other lines: a column is in percent or in fractions; if less than 1 % "
            "is meant, leave such lines out"
        )
    say(f"{found}, and nowhere above 1: fractions, taken as percent")
    return 100.0


@dataclass(frozen=True)
class LearnsFrom:
    """What the surrogate is given beside labels, by the first seed."""

    score: str
    prior: Floats  # (n,) what it scores
    features: FeatureTable


@dataclass(frozen=True)
class Scored:
    """The architectures of one space with their accuracies and, by proxy, their scores (seeds, n)."""

    truth: GroundTruth
    scores: Mapping[str, Floats]
    learns_from: LearnsFrom | None = None  # where there are labels


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The value of each line that is not blank, with where it is, as `file.jsonl, line 3`.

    Raises UsageError for a file that is no text, and for the first line that is not JSON.
    """
    for number, line in enumerate(_read_text(path).split("\n"), 1):  # other separators may stand inside of strings
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line, object_pairs_hook=_each_key_once)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{where} is not JSON: {error}") from None


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    coding = json.detect_encoding(data)  # UTF-8, or what editors and shells on Windows write
    try:
        return data.decode(coding)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no {coding.upper()} text (byte {error.start:,}); save it as UTF-8") from None


def _each_key_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Python's reader takes the last of several in silence."""
    read = dict[str, Any]()
    for key, value in pairs:
        if key in read:
            raise ValueError(f"the key {key!r} is there twice")
        read[key] = value
    return read
