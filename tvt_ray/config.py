"""The whole run as one validated model, composed from the settings that the modules own.

The defaults are configs/digits.yaml: offline, embedded data, minutes on a CPU.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tvt_ray.data.datasets import DataSettings
from tvt_ray.data.probe import ProbeSettings
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distill.loop import DistillSettings
from tvt_ray.distill.teacher import TeacherTraining
from tvt_ray.errors import UsageError
from tvt_ray.models.teacher import TeacherSettings
from tvt_ray.search.algorithms import SearchSettings
from tvt_ray.search.fusion import ScoreSettings
from tvt_ray.space import SPACES, AutoFormerSpace, Budget, SpaceSettings


class RunConfig(BaseModel):
    """A search and the distillation that follows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0  # of weights, calibration sample and searcher
    space: SpaceSettings = AutoFormerSpace(
        image_size=32,
        patch_size=8,
        embed_dim=(64, 96, 128),
        depth=(3, 4, 5, 6),
        num_heads=(2, 4),
        mlp_ratio=(2, 3, 4),
    )
    budget: Budget = Budget()
    data: DataSettings = DataSettings()
    teacher: TeacherSettings = TeacherSettings()
    teacher_training: TeacherTraining = TeacherTraining(epochs=10, hflip=0)
    probe: ProbeSettings = ProbeSettings()
    score: ScoreSettings = ScoreSettings()
    search: SearchSettings = SearchSettings()
    distill: DistillSettings = DistillSettings(
        epochs=40,
        batch_size=32,
        lr=2e-3,
        warmup_epochs=5,
        augment=AugmentSettings(scale=(0.6, 1.0), hflip=0, auto_augment=None, random_erasing=0),
    )

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


# What decides which rows a run has and what is in them: a run folder holds rows of one such identity.
IDENTITY = ("seed", "space", "budget", "data", "teacher", "teacher_training", "probe", "score")


def load_config(path: Path | None, overrides: Sequence[Mapping[str, Any]] = ()) -> RunConfig:
    """Defaults, then the file, then each override, merged key by key.

    A section whose `name` changes (another space, another teacher) starts from that one's defaults instead. Raises
    UsageError that names the key, what was wrong and what is allowed.
    """
    merged = RunConfig().model_dump(mode="json")
    for layer in [*([read_yaml(path)] if path else []), *overrides]:
        merged = _merge(merged, layer)
    return validate(merged)


def validate(values: Mapping[str, Any]) -> RunConfig:
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(explain(error)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"there is no config file {path}")
    try:
        return parse_yaml(str(path), path.read_text())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def parse_yaml(name: str, text: str) -> dict[str, Any]:
    """The settings in a file's text; `name` is for the error that says it holds none."""
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise UsageError(
            f"{name} does not hold a mapping of settings; the sections are {', '.join(RunConfig.model_fields)}"
        )
    return loaded


def parse_assignment(text: str) -> dict[str, Any]:
    """'search.num_samples=64' -> {'search': {'num_samples': 64}}; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes key.path=value, as in --set probe.num_images=64; got {text!r}")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {key}: {value!r} is not YAML") from None
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in layer.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = key == "space" and value.get("name", old.get("name")) != old.get("name")
            merged[key] = dict(value) if renamed else _merge(old, value)
        else:
            merged[key] = value
    return merged


def explain(error: ValidationError) -> str:
    """The first problem as one line: key, rule, what was got, and the nearest key for a misspelt one."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    space = path.pop(1) if path[:1] == ["space"] and len(path) > 1 else ""  # pydantic puts the union's choice there
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(path[:-1], space)
        close = difflib.get_close_matches(path[-1], known, 1)
        hint = f"did you mean {'.'.join([*path[:-1], close[0]])!r}? " if close else ""
        return f"unknown config key {key!r}: {hint}allowed here: {', '.join(known)}"
    got = problem["input"]
    if problem["type"].startswith("union_tag"):
        name = got.get("name") if isinstance(got, dict) else got
        return f"config space.name: unknown search space {name!r}; choices: {', '.join(SPACES)}"
    message = problem["msg"].removeprefix("Value error, ")
    told = isinstance(got, dict) or repr(got) in message
    return f"config {key or 'file'}: {message}" + ("" if told else f" (got {got!r})")


def _fields_at(path: Sequence[str], space: str) -> list[str]:
    """The keys that are allowed at a place in the config, `space` being the search space's name."""
    model: Any = RunConfig()
    for part in path:
        model = SPACES[space]() if part == "space" else getattr(model, part, model)
    return list(type(model).model_fields)


def difference(ours: RunConfig, stored: RunConfig) -> str | None:
    """The first setting in which two runs' rows would differ, as 'key: ours, theirs'; None when they are the same."""
    for section in IDENTITY:
        mine, theirs = (_flatten(section, config.model_dump(mode="json")[section]) for config in (ours, stored))
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                return f"{key} is {mine.get(key)} here and {theirs.get(key)} there"
    return None


def _flatten(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in _flatten(f"{prefix}.{key}", inner).items()}
