"""Runs a benchmark, keeps what it measured with its commit, and prints it as a table and as one JSON object.

python -m benchmarks NAME [flags of that benchmark] [--out DIR]

A benchmark is a module of this folder with `add(parser)` (its flags), `measure(args, record)` (its result) and
`show(result)` (tables for people). Its parts are kept under DIR/NAME/COMMIT-SETTINGS/ as they are done, and so is its
result: what the same commit has measured with the same flags is not measured again.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tvt_ray.cli.main import run
from tvt_ray.cli.options import OUTPUT, Parser, add_options
from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say
from tvt_ray.proxies.probe import select_balanced
from tvt_ray.storage.locations import write_atomically

REPO = Path(__file__).parents[1]
BENCHMARKS = (
    *("fit", "headline", "refine", "ground_truth", "proxies", "scorer", "trunk", "scale", "chaos", "gpu"),
    *("interrupts", "leak", "distill", "crowd", "surrogates", "students", "lengths", "cluster_lab", "dashboard"),
)
CONFIG = ("config", "dataset", "teacher", "teacher-weights", "set")  # flags of a benchmark that has a config
HOW_MUCH = ("seeds", "cases", "precision", "bands")  # flags that say which parts are measured, and change none of them
NO_SETTINGS = (*HOW_MUCH, "out", "json", "debug", "command", "stdout")


@dataclass(frozen=True)
class Record:
    """What one commit measured with one set of flags."""

    commit: str
    folder: Path

    def once(self, part: str, measure: Callable[..., Any], *args: Any) -> Any:
        """What a part gave, as JSON: measured now, unless it is there."""
        if self.find(part) is None:
            say(f"measuring: {part}")
            self.keep(part, measure(*args))
        else:
            say(f"measured already: {part}")
        return self.find(part)

    def find(self, part: str) -> Any:
        """What was kept of a part, or None."""
        file = self.folder / f"{part}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def keep(self, part: str, value: Any) -> None:
        write_atomically(self.folder / f"{part}.json", json.dumps(value, indent=1).encode())


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    parser = Parser(prog="python -m benchmarks", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = "\n".join(f"{name:14}{summary_of(name)}" for name in BENCHMARKS)
    parser.add_argument("name", metavar="NAME", choices=BENCHMARKS)
    name = parser.parse_args(words[:1]).name
    return run(build_parser(name), words[1:])


def summary_of(name: str) -> str:
    """The first line of a benchmark's docstring; importing it would take seconds."""
    docstring = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text()))
    return str(docstring).splitlines()[0]


def build_parser(name: str) -> argparse.ArgumentParser:
    benchmark = importlib.import_module(f"benchmarks.{name}")
    parser = Parser(prog=f"python -m benchmarks {name}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = benchmark.__doc__
    benchmark.add(parser)
    add_options(parser, *OUTPUT)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks"), metavar="DIR", help="where results are kept"
    )
    parser.set_defaults(command=lambda args: _run(name, benchmark, args))
    return parser


def _run(name: str, benchmark: Any, args: argparse.Namespace) -> int:
    commit, settings = commit_here(), settings_of(args)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    record = Record(commit, (args.out / name / f"{commit}-{digest}").absolute())
    record.keep("settings", settings)
    result = {"benchmark": name, "commit": commit, **benchmark.measure(args, record)}
    record.keep("result", result)
    benchmark.show(result)
    say(f"kept in {record.folder}")
    sys.stderr.flush()
    print(json.dumps(result), file=args.stdout, flush=True)
    return int(getattr(benchmark, "failed", lambda result: False)(result))


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What decides how a benchmark measures: its flags, and the content of the config that they name."""
    settings = {name: value for name, value in vars(args).items() if name not in NO_SETTINGS}
    if settings.get("config") is not None:
        settings["config"] = Path(settings["config"]).read_text()
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    """As JSON has it; paths and whatever else are texts."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float) else str(value)


def commit_here() -> str:
    """The commit of this checkout, and a digest of what was changed since; `unknown` where it is none."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=REPO, check=True, capture_output=True, text=True).stdout

    try:
        commit, changes = (
            git("rev-parse", "--short", "HEAD").strip(),
            git("diff", "HEAD", "--", "tvt_ray", "benchmarks"),
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else commit


# What several benchmarks do:


def tvt(*words: str) -> dict[str, Any]:
    """The JSON object that a command ends with; its progress is shown. Raises RunError where it fails."""
    command = [sys.executable, "-m", "tvt_ray", *words, "--json"]
    done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RunError(f"tvt {' '.join(words)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_part(dataset: str, folder: Path, sizes: Mapping[str, Mapping[str, int]], seed: int) -> str:
    """A part of a Parquet dataset, balanced by class, written once: the dataset's name.

    `sizes`: by file (train, test) the splits that are taken from it, with their numbers of images. Raises UsageError
    where the dataset is no Parquet.
    """
    kind, _, path = dataset.partition(":")
    if kind != "parquet":
        raise UsageError(f"--dataset is parquet:PATH, a folder with train.parquet and test.parquet; got {kind}")
    for source, parts in sizes.items():
        table, start = pq.read_table(Path(path) / f"{source}.parquet"), 0
        chosen = select_balanced(np.array(table["label"]), sum(parts.values()), seed)
        for name, size in parts.items():
            if not (folder / f"{name}.parquet").exists():
                folder.mkdir(parents=True, exist_ok=True)
                pq.write_table(table.take(chosen[start : start + size]), folder / f"{name}.parquet")
            start += size
    return f"parquet:{folder}"


def names_of(text: str, known: Mapping[str, Any], flag: str) -> Sequence[str]:
    """Names separated by commas, each of them known; none in an empty text. Raises UsageError."""
    chosen = [name for name in text.split(",") if name]
    for name in chosen:
        if name not in known:
            raise UsageError(f"{flag}: unknown {name!r}; choices: {', '.join(known)}")
    return chosen
