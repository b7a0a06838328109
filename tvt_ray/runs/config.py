"""The whole run as one validated model, composed from the settings that the modules own.

The defaults are configs/digits.yaml: offline, embedded data, minutes on a CPU.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from tvt_ray.cluster.settings import ClusterSettings
from tvt_ray.data.datasets import check_name
from tvt_ray.data.settings import WHERE, DataSettings
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.errors import UsageError
from tvt_ray.plugins import load_plugins
from tvt_ray.proxies.probe import ProbeSettings
from tvt_ray.refining.halving import RefineSettings
from tvt_ray.runs import yaml_text
from tvt_ray.scoring.scores import ScoreSettings
from tvt_ray.searchers import check_searcher
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.storage.locations import Location
from tvt_ray.strict import Seed, Strict, merged
from tvt_ray.teachers import kind_of
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining
from tvt_ray.vits import SPACES, SpaceField
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.budget import Budget

FORMAT: Literal[2] = 2  # what a run folder holds; another number was written by another version


class RunConfig(Strict):
    """A search and the distillation that follows it."""

    format: Literal[2] = FORMAT  # version of the run folder's format
    plugins: tuple[str, ...] = ()  # modules of your own that add rows to the tables (docs/extending.md)
    seed: Seed = 0  # of the weights that are scored, the calibration sample and the searcher
    space: SpaceField = AutoFormerSpace(
        image_size=32,
        patch_size=8,
        embed_dim=(64, 96, 128),
        depth=(3, 4, 5, 6),
        num_heads=(2, 4),
        mlp_ratio=(2, 3, 4),
    )
    budget: Budget = Budget()
    data: DataSettings = Field(default_factory=DataSettings)  # whose paths are of the folder that one is in then
    teacher: TeacherSettings = TeacherSettings()
    teacher_training: TeacherTraining = TeacherTraining(epochs=10, hflip=0)
    probe: ProbeSettings = ProbeSettings()
    score: ScoreSettings = ScoreSettings()
    search: SearchSettings = SearchSettings()
    refine: RefineSettings = RefineSettings()
    distill: DistillSettings = DistillSettings(
        epochs=40,
        batch_size=32,
        lr=2e-3,
        warmup_epochs=5,
        augment=AugmentSettings(scale=(0.6, 1.0), hflip=0, auto_augment=None, random_erasing=0),
    )
    cluster: ClusterSettings = ClusterSettings()

    def with_(self, *layers: Mapping[str, Any], **changes: Any) -> RunConfig:
        """As of any settings. Raises UsageError that names the key, what was wrong and what is allowed."""
        return validate(merged(self.model_dump(mode="json"), *map(_winning, (*layers, changes))))

    def ranked_by(self, score: str) -> RunConfig:
        """With another score; `measured` keeps the present one for what was not measured.

        Raises UsageError for one that is unknown, or made of what was not read.
        """
        return self.with_(score={"name": score, "prior": self.score.zero_cost})

    def resolved(self) -> RunConfig:
        """With what its run reads written down, so that another score later does not change it."""
        return self.with_(score={"proxies": self.score.to_read})

    def to_yaml(self) -> str:
        """Every setting, defaults included, as `load_config` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _winning(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A layer that sets the teacher's epochs sets no floor below them that an earlier one had."""
    teaching = layer.get("teacher_training") if isinstance(layer, Mapping) else None
    if not isinstance(teaching, Mapping) or "epochs" not in teaching or "min_steps" in teaching:
        return layer
    return {**layer, "teacher_training": {**teaching, "min_steps": 0}}


# What decides which rows a run has and what is in them, beside what is read: a run folder holds rows of one identity.
IDENTITY = ("seed", "space", "budget", "data", "teacher", "teacher_training", "probe")


def load_config(path: Path | None, overrides: Sequence[Mapping[str, Any]] = ()) -> RunConfig:
    """Defaults, then the file, then each override, merged key by key.

    A space whose `name` changes starts from that one's defaults instead. Raises UsageError that names the key, what was
    wrong and what is allowed.
    """
    if path and not path.is_file():
        raise UsageError(f"there is no config file {path}")
    return RunConfig().with_(*([read_yaml(path)] if path else []), *overrides)


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Raises UsageError for the first thing that is wrong. Plugins are imported before, since they add choices."""
    plugins = values.get("plugins") or ()
    load_plugins(plugins if isinstance(plugins, list | tuple) and all(isinstance(p, str) for p in plugins) else ())
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(explain(error, values)) from None
    check_name(config.data)
    names: dict[str, tuple[Callable[[Any], object], Any]] = {
        "search.searcher": (check_searcher, config.search.searcher),
        "teacher.name": (kind_of, config.teacher.name),
    }
    if config.search.callbacks:
        from tvt_ray.cluster.trials import check_callbacks  # Tune, which takes seconds to import

        names["search.callbacks"] = (check_callbacks, config.search.callbacks)
    for key, (check, name) in names.items():  # here, since what makes a table's rows takes the settings that name them
        try:
            check(name)
        except ValueError as error:
            raise UsageError(f"config {key}: {error}") from None
    return config


def read_yaml(path: Location) -> dict[str, Any]:
    """The settings in a file. Raises UsageError where it cannot be read, or is no UTF-8 YAML of settings."""
    try:
        loaded = yaml_text.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise UsageError(
            f"{path} does not hold a mapping of settings; the sections are {', '.join(RunConfig.model_fields)}"
        )
    return loaded


def explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first problem as one line: key, rule, what was got, and the nearest key for a misspelt one.

    `values`: what was validated.
    """
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    key, got = ".".join(path), problem["input"]
    if problem["type"] == "extra_forbidden":
        known = _fields_at(path[:-1], values)
        close = difflib.get_close_matches(path[-1], known, 1)
        hint = f"did you mean {'.'.join([*path[:-1], close[0]])!r}? " if close else ""
        return f"unknown config key {key!r}: {hint}allowed here: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    told = isinstance(got, dict) or repr(got) in message
    return f"config {key or 'file'}: {message}" + ("" if told else f" (got {got!r})")


def _fields_at(path: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """The keys that are allowed at a place; a search space is the model that its name says."""
    model: Any = RunConfig
    for part in path:
        field = model.model_fields.get(part)
        if model is RunConfig and part == "space":
            model = SPACES[values["space"]["name"]]
        elif field is not None and hasattr(field.annotation, "model_fields"):
            model = field.annotation
    return list(model.model_fields)


def difference(ours: RunConfig, stored: RunConfig) -> str | None:
    """The first setting in which two runs' rows would differ, as 'key: ours, theirs'; None when they are the same.

    Where the data lies is no difference: `DataIdentity` compares what is there.
    """
    for section in (*IDENTITY, "read"):
        mine, theirs = (_flatten(section, _identity(config)[section]) for config in (ours, stored))
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                return f"{key} is {mine.get(key)} here and {theirs.get(key)} there"
    return None


def _identity(config: RunConfig) -> dict[str, Any]:
    """What makes a run's rows what they are. Which score ranks them does not."""
    read = {"proxies": list(config.score.to_read), "calibration_samples": config.score.calibration_samples}
    elsewhere = {"data": set(WHERE), "budget": {"latency_profile"}}  # a run folder keeps its own copy of the profile
    return {**config.model_dump(mode="json", exclude=elsewhere), "read": read}


def _flatten(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in _flatten(f"{prefix}.{key}", inner).items()}
