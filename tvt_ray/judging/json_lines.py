"""Files with a JSON object on each line, whoever wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tvt_ray.errors import UsageError


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
