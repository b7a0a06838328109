"""What several benchmarks do: run a command, and take a part of a dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tvt_ray.errors import UsageError
from tvt_ray.proxies.probe import select_balanced
from tvt_ray.runs.config import RunConfig, load_config


def tvt(*words: str) -> dict[str, Any]:
    """The JSON object that a command ends with; its progress is shown. Ends the process where the command fails."""
    command = [sys.executable, "-m", "tvt_ray", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: tvt {' '.join(words)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_parts(dataset: str, folder: Path, sizes: Mapping[str, Mapping[str, int]], seed: int) -> str:
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


def with_part(config: RunConfig, out: Path, sizes: Mapping[str, Mapping[str, int]]) -> RunConfig:
    """The config on such a part of its dataset, which is written to `out`. Raises UsageError likewise."""
    name = write_parts(config.data.name, out.absolute() / "data", sizes, config.seed)
    return load_config(None, [config.model_dump(mode="json"), {"data": {"name": name}}])
