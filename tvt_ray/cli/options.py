"""Every flag once: what it is called, what it means, and which setting it is."""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvt_ray.errors import UsageError
from tvt_ray.plugins import load_plugins
from tvt_ray.storage.locations import absolute

if TYPE_CHECKING:
    from tvt_ray.runs.config import RunConfig


class Parser(argparse.ArgumentParser):
    """One line and exit code 2 for wrong usage; no abbreviations. `<name>` in a help text lists that table's rows."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> Any:
        """Without the usage text before it, and with the flag that is nearest to one that there is not."""
        unknown = re.search(r"unrecognized arguments: (?:.* )?(--[\w-]+)", message)
        close = difflib.get_close_matches(unknown[1], self._flags(), 1, 0.5) if unknown else []
        hint = f" (did you mean {close[0]}?)" if close else ""
        self.exit(2, f"{self.prog}: error: {message}{hint}\n")

    def _flags(self) -> list[str]:
        """Its own, and those of its commands."""
        inner = [action.choices.values() for action in self._actions if isinstance(action.choices, dict)]
        parsers = [self, *(each for each in itertools.chain(*inner) if isinstance(each, argparse.ArgumentParser))]
        return sorted({flag for parser in parsers for flag in parser._option_string_actions})

    def format_help(self) -> str:
        """Tables are read now: importing them takes seconds, and parsing does without."""
        for action in self._actions:
            for name, rows in TABLES.items():
                if action.help and f"<{name}>" in action.help:
                    action.help = action.help.replace(f"<{name}>", ", ".join(rows()))
        return super().format_help()


def _datasets() -> list[str]:
    from tvt_ray.data.datasets import describe_datasets

    return describe_datasets()


def _teachers() -> list[str]:
    from tvt_ray.teachers import describe_teachers

    return describe_teachers()


def _searchers() -> list[str]:
    from tvt_ray.searchers import SEARCHERS

    return list(SEARCHERS)


def _scores() -> list[str]:
    from tvt_ray.scoring.scores import MEASURED, score_names

    return [*score_names(), MEASURED]


def _formats() -> list[str]:
    from tvt_ray.exports import describe_formats

    return describe_formats()


def _baselines() -> list[str]:
    from tvt_ray.verbs.compare import BASELINES

    return list(BASELINES)


# What a help text may list.
TABLES: dict[str, Callable[[], list[str]]] = {
    "datasets": _datasets,
    "teachers": _teachers,
    "searchers": _searchers,
    "scores": _scores,
    "formats": _formats,
    "baselines": _baselines,
}


def count(text: str) -> int:
    """6M, 1.5G or a plain number. Raises ArgumentTypeError."""
    from tvt_ray.vits.budget import parse_count

    try:
        return int(parse_count(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def path(text: str) -> Path:
    """A file or folder on this machine: absolute, `~` expanded. Raises ArgumentTypeError."""
    try:
        return absolute(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """A number of things. Raises ArgumentTypeError, before anything that takes seconds is imported."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1; got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1; got {number}")
    return number


def above_zero(text: str) -> float:
    """A length. Raises ArgumentTypeError likewise."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number above 0; got {text!r}") from None
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0; got {text}")
    return number


def _share(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number such as 0.25, or auto; got {text!r}") from None


@dataclass(frozen=True)
class Option:
    """A flag; `key`, where there is one, is the setting that it overrides."""

    help: str
    key: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of argparse
    setting: Callable[[Any], Any] = lambda value: value  # what the value becomes, once the command line is parsed


def _value(help: str, metavar: str, key: str | None = None, **arguments: Any) -> Option:  # noqa: A002 (as argparse)
    return Option(help, key, {"metavar": metavar, **arguments})


def _dataset(text: str) -> str:
    from tvt_ray.data.datasets import dataset_name

    return dataset_name(text)


def _switch(help: str) -> Option:  # noqa: A002
    return Option(help, None, {"action": "store_true"})


OPTIONS: dict[str, Option] = {
    "config": _value(
        "YAML settings (default: those of configs/digits.yaml; of imagefolder and parquet, a recipe from the data)",
        "FILE",
        type=path,
    ),
    "dataset": Option(
        "<datasets>; or a path alone, to a folder of class folders or Parquet",
        "data.name",
        {"metavar": "NAME"},
        setting=_dataset,
    ),
    "labels": _value(
        "table (.csv, .tsv, .jsonl) of the images' labels, or a folder with train.csv and test.csv",
        "FILE",
        "data.labels",
        type=path,
    ),
    "group-by": _value(
        "what says which images belong together, on one side of a split: a pattern of their paths, or a column",
        "WHAT",
        "data.group_by",
    ),
    "teacher": _value("<teachers>, or auto: a pretrained one that is to be had", "NAME", "teacher.name"),
    "teacher-weights": _value("its trained weights (safetensors or a state dict)", "FILE", "teacher.weights"),
    "set": _value("any setting, as in probe.num_images=64; repeatable", "KEY=VALUE", action="append", default=[]),
    "json": _switch("end with one JSON object on standard output"),
    "debug": _switch("print the traceback of an error that is not expected"),
    "num-samples": _value("different architectures to score", "N", "search.num_samples", type=positive),
    "searcher": _value("<searchers>", "NAME", "search.searcher"),
    "run-dir": _value("the run's folder, or its URI (s3://…, gs://…)", "DIR"),
    "resume": _switch("go on with what an earlier call began"),
    "seed": _value("of weights, calibration sample and searcher", "N", "seed", type=int),
    "score": _value("what ranks: <scores>", "NAME", "score.name"),
    "readings": _value("full (default), or score: what the score is made of alone", "WHICH", "score.readings"),
    "min-params": _value("budget, as in 1M", "N", "budget.min_params"),
    "max-params": _value("budget, as in 6M", "N", "budget.max_params"),
    "min-flops": _value("budget, as in 300M", "N", "budget.min_flops"),
    "max-flops": _value("budget, as in 1.5G", "N", "budget.max_flops"),
    "max-latency-ms": _value(
        "budget, as in 10: what `tvt profile` predicts for a batch of images (of 1, or budget.latency_batch_size)",
        "MS",
        "budget.max_latency_ms",
        type=above_zero,
    ),
    "gpus-per-trial": _value(
        "share of a GPU for each scoring worker; auto: as its memory allows",
        "SHARE",
        "cluster.gpus_per_trial",
        type=_share,
    ),
    "archs-per-trial": _value(
        "architectures that a worker is given at a time (default: about four seconds' worth)",
        "N",
        "cluster.archs_per_trial",
        type=positive,
    ),
    "trial": _value(
        "what a Tune trial is: worker, which reads batch after batch (the default), or architecture",
        "KIND",
        "cluster.trial",
    ),
    "init": _value(
        "a larger ViT whose weights students begin with: timm:NAME, a file, or a student's folder",
        "WEIGHTS",
        "distill.init",
    ),
    "epochs": _value("of the training", "N", "distill.epochs", type=positive),
    "num-students": _value("students that are trained shortly", "N", "refine.num_students", type=positive),
    "num-workers": _value("Ray Train workers of each training", "N", "cluster.training_workers", type=positive),
    "ray-address": _value("a running cluster (default: RAY_ADDRESS, or Ray on this machine)", "ADDRESS"),
    "num-images": _value("images in the probe", "N", "probe.num_images", type=positive),
}

COMMON = ("dataset", "labels", "group-by", "teacher", "teacher-weights", "set", "json", "debug")
OUTPUT = ("json", "debug")  # of commands that take no config


def add_options(parser: argparse.ArgumentParser, *names: str, **changed: Any) -> None:
    """Adds flags of OPTIONS; `changed` overrides argparse's arguments for all of them."""
    for name in names:
        option = OPTIONS[name]
        parser.add_argument(f"--{name}", help=option.help, **{**option.arguments, **changed})


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Flags and --set as settings of a config, the latter last; a flag that was not given is no setting."""
    from tvt_ray.runs.yaml_text import parse_assignment
    from tvt_ray.strict import merged

    layers: list[Mapping[str, Any]] = []
    for name, option in OPTIONS.items():
        value: Any = getattr(args, name.replace("-", "_"), None)
        if option.key and value is not None:
            value = option.setting(value)
            for part in reversed(option.key.split(".")):
                value = {part: value}
            layers.append(value)
    return merged({}, *layers, *map(parse_assignment, args.set))


def asked_now(args: argparse.Namespace) -> dict[str, Any]:
    """`overrides`, of a dataset that is there: what is not, or is laid out otherwise, is said before torch is imported.

    Raises UsageError.
    """
    from tvt_ray.data.datasets import check_layout, check_place

    asked = overrides(args)
    data = asked.get("data", {})
    check_place(str(data.get("name", "")))
    run_dir = getattr(args, "run_dir", None)
    begun = run_dir is not None and (run_dir / "config.yaml").exists()
    if not begun and getattr(args, "config", None) is None:  # either may say how it is laid out
        check_layout(data)
    return asked


def config_of(args: argparse.Namespace, asked: Mapping[str, Any] | None = None) -> RunConfig:
    """The config that the flags ask for. `asked`: what `asked_now` gave, where that was called. Raises UsageError."""
    asked = asked_now(args) if asked is None else asked
    from tvt_ray.runs.config import load_config

    return load_config(args.config, [asked])


def own_config_of(args: argparse.Namespace, asked: Mapping[str, Any] | None = None) -> RunConfig:
    """The same; without a file, images of one's own get the recipe for them. Raises UsageError."""
    asked = asked_now(args) if asked is None else asked
    from tvt_ray.planning.recipe import own_config

    return own_config(asked) if args.config is None else config_of(args, asked)


def config_of_run(args: argparse.Namespace) -> RunConfig:
    """The stored config of --run-dir with this call's flags on top, or a file's. Raises UsageError."""
    from tvt_ray.runs.config import load_config
    from tvt_ray.runs.folder import RunFolder

    if args.run_dir is None:
        raise UsageError("--resume needs --run-dir: which run to go on with")
    load_plugins(plugins_of(args))  # a run that was made with plugins is read by who names them again
    folder = RunFolder(args.run_dir)
    if args.config is not None:
        return load_config(args.config, [{"score": {"proxies": folder.config().score.proxies}}, overrides(args)])
    stored = folder.config_for(overrides(args))
    prior = {"score": {"prior": stored.score.zero_cost}}  # of `measured`, where that is asked for now
    return stored.with_(prior, overrides(args))


def plugins_of(args: argparse.Namespace) -> list[str]:
    """The modules that this call named."""
    return [str(name) for name in overrides(args).get("plugins") or ()]
