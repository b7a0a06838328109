"""Which columns of Parquet files hold images and labels, and what the classes are called."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tvt_ray.data.notes import listing
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line, shown


class _Kind(NamedTuple):
    """How a column is found where the settings do not say."""

    what: str  # as in data.label_column
    usual: tuple[str, ...]  # names, the first of which that is there is taken
    feature: str  # its type in Hugging Face's metadata


IMAGE = _Kind("image", ("image", "img"), "Image")
LABEL = _Kind("label", ("label", "labels", "fine_label"), "ClassLabel")


@dataclass(frozen=True)
class Columns:
    """Chosen once, by the first training file, and the same in all files."""

    image: str
    label: str
    class_names: tuple[str, ...] | None  # of that very column, where metadata has them
    notes: tuple[str, ...] = ()


def choose_columns(path: Path, settings: DataSettings) -> Columns:
    """As the settings say, else by name, else the only column that Hugging Face's metadata calls an image or a label.

    Raises UsageError that lists the columns where there is none.
    """
    with reading(path):
        schema = pq.read_schema(path)
    label, label_notes = _choose(path, schema, LABEL, settings.label_column)
    image, image_notes = _choose(path, schema, IMAGE, settings.image_column)
    return Columns(image, label, stated_names(path, schema, label), (*label_notes, *image_notes))


def _choose(path: Path, schema: pa.Schema, kind: _Kind, wanted: str | None) -> tuple[str, list[str]]:
    """(the column, what is to be said of others that it could have been)."""
    key = f"data.{kind.what}_column"
    if wanted is not None:
        if wanted not in schema.names:
            raise UsageError(f"{shown(path)} has no column {wanted!r} ({key}); it has {listing(schema.names)}")
        return wanted, []
    features = _features(path, schema)
    usual = [name for name in kind.usual if name in schema.names]
    marked = [name for name in schema.names if _feature(features, name).get("_type") == kind.feature]
    if not usual and len(marked) != 1:
        names = " or ".join(kind.usual)
        got = listing(schema.names)
        raise UsageError(f"{shown(path)}: a column named {names} is needed; got {got}; {key} names another")
    chosen = (usual or marked)[0]
    others = [name for name in dict.fromkeys(usual + marked) if name != chosen]
    note = f"the column {chosen} holds the {kind.what}s; {key} chooses another: {listing(others)}"
    return chosen, [note] if others else []


def stated_names(path: Path, schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """What a file's metadata calls the classes of the label column; None where it does not.

    Either Hugging Face's features of that column, or `class_names`: JSON, or with commas between. Raises UsageError.
    """
    names = _feature(_features(path, schema), label).get("names")
    if names is None and b"class_names" in (schema.metadata or {}):
        text = schema.metadata[b"class_names"].decode("utf-8", "backslashreplace")
        is_json = text.lstrip().startswith("[")
        names = _metadata(path, schema, b"class_names") if is_json else [name.strip() for name in text.split(",")]
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise UsageError(f"{shown(path)}: class names in the metadata are a list of texts; got {str(names)[:60]}")
    return tuple(shown(name) for name in names)


def _features(path: Path, schema: pa.Schema) -> Mapping[str, Any]:
    """What Hugging Face's metadata says of each column; nothing where there is none."""
    found = _metadata(path, schema, b"huggingface")
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _feature(features: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    feature = features.get(column)
    return feature if isinstance(feature, dict) else {}


def _metadata(path: Path, schema: pa.Schema, key: bytes) -> Any:
    try:
        return json.loads((schema.metadata or {}).get(key, "{}"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise UsageError(f"{shown(path)}: the metadata {key.decode()!r} is no JSON: {first_line(error)}") from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What pyarrow cannot read in the block is a UsageError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{shown(path)} cannot be read as Parquet: {first_line(error)}") from None
