"""The run folder: config.yaml, calibration.json, rows/, top.json, distill/, report.html."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvt_ray.config import RunConfig, difference, parse_yaml, validate
from tvt_ray.errors import UsageError
from tvt_ray.search.rows import Row
from tvt_ray.search.store import RowStore
from tvt_ray.storage import FolderLock, Location, write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and the reading and writing of what they hold."""

    path: Location

    @property
    def config_file(self) -> Location:
        return self.path / "config.yaml"

    @property
    def calibration_file(self) -> Location:
        return self.path / "calibration.json"

    @property
    def rows_folder(self) -> Location:
        return self.path / "rows"

    @property
    def distill_folder(self) -> Location:
        return self.path / "distill"

    @property
    def report_file(self) -> Location:
        return self.path / "report.html"

    @property
    def search_command(self) -> str:
        """What goes on with an unfinished search."""
        return f"python search.py --run-dir {shlex.quote(str(self.path))} --resume"

    def distill_command(self, top: int | None, arch_id: str | None) -> str:
        """What goes on with unfinished trainings."""
        which = f"--arch-id {arch_id}" if arch_id else f"--top-k {top or 1}"
        return f"python distill.py --run-dir {shlex.quote(str(self.path))} {which} --resume"

    def store(self) -> RowStore:
        return RowStore(self.rows_folder)

    def config(self) -> RunConfig:
        """The stored, resolved config. Raises UsageError when the folder holds no run."""
        if not self.config_file.is_file():
            raise UsageError(f"{self.path} holds no run: there is no config.yaml in it")
        return validate(parse_yaml(str(self.config_file), self.config_file.read_text()))

    def check(self, config: RunConfig, resume: bool) -> None:
        """Raises UsageError unless the folder is free for a new run, or holds the one to resume."""
        if resume:
            changed = difference(config, self.config())
            if changed:
                raise UsageError(f"{self.path} holds another run: {changed}; choose another --run-dir")
        elif self.config_file.exists() or self.store().holds_rows():
            raise UsageError(
                f"run folder {self.path} already holds a run; --resume goes on with it, another --run-dir starts anew"
            )

    def claim(self, config: RunConfig) -> None:
        """Writes config.yaml: from here on the folder holds this run."""
        write_atomically(self.config_file, config.to_yaml().encode())

    def lock(self) -> FolderLock:
        """Makes the folder; `with` it no other driver searches into it. Raises UsageError when one does."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"run folder {self.path} cannot be made: {error.strerror}") from None
        return FolderLock(self.path)

    def write_top(self, best: Sequence[Row], pareto: Sequence[Row]) -> None:
        top = {"best": [summary(row) for row in best], "pareto": [summary(row) for row in pareto]}
        write_atomically(self.path / "top.json", json.dumps(top, indent=1).encode())


def summary(row: Row) -> dict[str, Any]:
    """A row as command-line output lists it."""
    return {"arch_id": row.arch_id, "score": row.score, "params": row.params, "flops": row.flops, "arch": row.arch}
