"""Whether a run folder was made by this user, and what a stranger's says of places outside of it.

A run's config names where images and weights lie, and who goes on with the run reads them from there. What somebody
else's folder says is data: nothing outside is read or fetched because of it, unless the user names it again.
A folder of one's own holds a signature of its config (HMAC-SHA256) by a key that never leaves the user's home.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvt_ray.data.datasets import DATASETS
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig
from tvt_ray.storage.locations import Location, make_privately, shown, write_atomically

SIGNATURE_FILE = ".signature"


def sign(folder: Location, config: bytes, before: bytes | None) -> None:
    """Marks a folder as this user's who is about to write such a config.yaml, and of whom the one `before` was.

    Whoever is killed between the two has signed both. A stranger's stays one. Raises RunError where it cannot be
    written.
    """
    key, known = _key(), [] if before is None else [before]
    if key is None or not all(is_own(folder, each) for each in known):
        return
    write_atomically(folder / SIGNATURE_FILE, "".join(f"{_digest(key, each)}\n" for each in (*known, config)).encode())


def is_own(folder: Location, config: bytes) -> bool:
    """Whether this user wrote the config.yaml of a folder. A user without a home has no key, and all are taken so."""
    key, file = _key(), folder / SIGNATURE_FILE
    if key is None:
        return True
    signed = file.read_bytes().splitlines() if file.is_file() else []
    return any(hmac.compare_digest(each, _digest(key, config).encode()) for each in signed)


def check_named(folder: Location, config: RunConfig, asked: Mapping[str, Any], section: str = "") -> None:
    """Raises UsageError for places that a stranger's config names and the settings `asked` for do not name again.

    `section`: of the config, where only that is gone by.
    """
    again = {key: value for key, value in outside(config).items() if key.startswith(section) and not _has(asked, key)}
    if again:
        flags = " ".join(f"--set {shlex.quote(f'{key}={shown(value)}')}" for key, value in again.items())
        raise UsageError(
            f"{folder} was made elsewhere, or its config was changed by hand, and it names places outside of it, or "
            f"a pattern: where you mean those, name them again: {flags}"
        )


def outside(config: RunConfig) -> dict[str, str]:
    """Settings of a config that have files read, or fetched, from somewhere, by key; and a pattern, which may take for
    ever.
    """
    data, teacher = config.data, config.teacher
    named: dict[str, object] = {}
    kind = data.name.partition(":")[0]
    if DATASETS.get(kind, (None, True))[1]:
        named["data.name"] = data.name
    elif kind != RunConfig().data.name:  # which lies in a package
        named["data.root"] = data.root
    named |= {"data.image_root": data.image_root} if data.image_root else {}
    named |= {"data.labels": data.labels} if data.labels else {}
    named |= {"data.group_by": data.group_by} if data.group_by and not _COLUMN.fullmatch(data.group_by) else {}
    named |= {"teacher.weights": teacher.weights} if teacher.weights else {}
    named |= {} if isinstance(teacher.pretrained, bool) else {"teacher.pretrained": teacher.pretrained}
    named |= {"teacher.name": teacher.name} if "hub:" in teacher.name or "/" in teacher.name else {}
    named |= {"distill.init": config.distill.init} if config.distill.init else {}
    named |= {"budget.latency_profile": config.budget.latency_profile} if config.budget.latency_profile else {}
    return {key: str(value) for key, value in named.items()}


_COLUMN = re.compile(r"[\w -]+")


def _has(asked: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.partition(".")
    return name in asked.get(section, {})


def _digest(key: bytes, config: bytes) -> str:
    return hmac.new(key, config, hashlib.sha256).hexdigest()


def _key() -> bytes | None:
    """This user's, made where there is none; None where none can be kept."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        file = state / "tvt_ray" / "key"
        if not file.is_file():
            make_privately(file, secrets.token_bytes(32))
        return file.read_bytes()
    except (OSError, RuntimeError):
        return None
