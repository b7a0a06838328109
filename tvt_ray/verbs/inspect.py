"""Inspect: what somebody's run or student holds, by whom it says it was made, and what is odd about it.

Nothing of it is run, nothing outside is read, and nothing is written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import ARCH_FILE, WEIGHTS_FILE, StudentCard
from tvt_ray.runs import ownership
from tvt_ray.runs.config import RunConfig, read_yaml
from tvt_ray.storage.locations import Location, as_location, first_line, shown
from tvt_ray.strict import parse_json

CONFIG_FILE = "config.yaml"
MOST_LISTED = 20  # of odd entries
MOST_DESCRIPTION = 2**24  # bytes of a description that are read
# Endings of what this package writes; others are not refused, but named.
KNOWN = {
    *(".yaml", ".json", ".jsonl", ".parquet", ".safetensors", ".html", ".png", ".md", ".onnx", ".pt2", ".unfinished"),
    *(".lock", ".signature", ".pt", ".csv", ""),
}


@dataclass(frozen=True)
class Inspected:
    """What `tvt inspect --json` prints."""

    path: str
    kind: str  # a run, a student, or neither
    made_by: str  # as it says, or by this user's signature
    num_files: int
    bytes: int
    outside: dict[str, str]  # settings that name places outside of it
    plugins: tuple[str, ...]  # code that it was made with
    students: tuple[str, ...]  # what each says it is
    odd: tuple[str, ...]

    def sentences(self) -> list[str]:
        """In lines for people."""
        return [
            f"folder    {self.path}: {self.kind}, {self.num_files:,} files, {self.bytes:,} bytes",
            f"made by   {self.made_by}",
            *(f"names     {key}: {value}" for key, value in self.outside.items()),
            *(f"plugin    {name}: code of somebody's, which a run imports once you name it" for name in self.plugins),
            *(f"student   {each}" for each in self.students),
            *(f"odd       {each}" for each in self.odd),
            *([] if self.odd else ["odd       nothing"]),
        ]


def inspect(folder: Location | str) -> Inspected:
    """Looks at a local folder. Raises UsageError where there is none."""
    path = as_location(folder)
    if not isinstance(path, Path) or not path.is_dir():
        raise UsageError(f"{path} is no folder of this machine")
    files, odd = _entries(path)
    config = _config(path, odd) if CONFIG_FILE in files else None
    cards = [Path(name) for name in files if Path(name).name == ARCH_FILE]
    kind = "a run" if CONFIG_FILE in files else "a student" if ARCH_FILE in files else "no run and no student"
    return Inspected(
        path=shown(path),
        kind=kind,
        made_by=_made_by(path, files),
        num_files=len(files),
        bytes=sum(files.values()),
        outside={} if config is None else {key: shown(value) for key, value in ownership.outside(config).items()},
        plugins=() if config is None else tuple(map(shown, config.plugins)),
        students=tuple(_student(path, card, odd) for card in sorted(cards)),
        odd=tuple(odd[:MOST_LISTED]) + ((f"and {len(odd) - MOST_LISTED:,} more",) if len(odd) > MOST_LISTED else ()),
    )


def _entries(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Regular files with their bytes, by their place in the folder; and what is odd about the entries."""
    files, odd = dict[str, int](), list[str]()
    for path in _walk(folder):
        name, status = shown(path.relative_to(folder)), path.lstat()
        if stat.S_ISLNK(status.st_mode):
            inside = path.resolve().is_relative_to(folder.resolve())
            odd.append(f"{name} is a link to {shown(path.readlink())}{'' if inside else ', which is outside'}")
        elif not stat.S_ISREG(status.st_mode):
            odd.append(f"{name} is neither a file nor a folder")
        else:
            files[str(path.relative_to(folder))] = status.st_size
            if status.st_mode & 0o111:
                odd.append(f"{name} is marked as a program")
            if path.suffix.lower() not in KNOWN:
                odd.append(f"{name} is a file that no version of tvt_ray writes")
    return files, odd


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):  # links to folders are among the folders, and not gone into
        for name in sorted(files):
            yield Path(place, name)
        yield from (Path(place, name) for name in sorted(folders) if Path(place, name).is_symlink())


def _config(folder: Path, odd: list[str]) -> RunConfig | None:
    """Without its plugins being imported; None, and why among what is odd, where it is none of this version."""
    try:
        if (folder / CONFIG_FILE).stat().st_size > MOST_DESCRIPTION:
            raise UsageError(f"{CONFIG_FILE} has more than {MOST_DESCRIPTION:,} bytes")
        return RunConfig.model_validate(read_yaml(folder / CONFIG_FILE))
    except (UsageError, ValidationError) as error:
        odd.append(f"{CONFIG_FILE} is not read: {shown(first_line(error))}")
        return None


def _made_by(folder: Path, files: dict[str, int]) -> str:
    if CONFIG_FILE not in files:
        return "nothing says so"
    if files[CONFIG_FILE] <= MOST_DESCRIPTION and ownership.is_own(folder, (folder / CONFIG_FILE).read_bytes()):
        return "this user, by its signature"
    with (folder / CONFIG_FILE).open("rb") as file:
        head = file.read(500).decode(errors="replace")
    version = re.search(r"tvt_ray ([\w.]+) resolved", head)
    said = f"tvt_ray {version[1]}, it says" if version else "nothing says by what"
    return f"somebody else, or its config was changed by hand; {said}"


def _student(folder: Path, card: Path, odd: list[str]) -> str:
    name = shown(card.parent)
    try:
        if (folder / card).stat().st_size > MOST_DESCRIPTION:
            raise ValueError(f"more than {MOST_DESCRIPTION:,} bytes")
        found = StudentCard.from_json(parse_json((folder / card).read_bytes()))
        params = found.space.cost(found.arch, len(found.class_names)).params
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, UsageError) as error:
        odd.append(f"{name}/{ARCH_FILE} does not describe a student: {shown(first_line(error))}")
        return f"{name}: not described"
    weights = folder / card.parent / WEIGHTS_FILE
    if not weights.is_file() or weights.stat().st_size < params:
        odd.append(f"{name}/{WEIGHTS_FILE} is missing or smaller than the {params:,} parameters that are described")
    origin = found.origin.data.get("name") if found.origin else None
    data = f", trained on {shown(origin)}, it says" if origin else ""
    return f"{name}: {found.arch_id}, {params:,} parameters, {len(found.class_names):,} classes{data}"
