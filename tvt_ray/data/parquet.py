"""Images and labels in Parquet files, as Hugging Face lays them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tvt_ray.data.images import EncodedImages
from tvt_ray.data.settings import DataSettings, Parts
from tvt_ray.data.splits import Split
from tvt_ray.errors import UsageError


def parquet_dataset(settings: DataSettings, path: Path) -> Parts:
    """A Parquet file, or a folder of them named train*, test* and val* (also in data/), as Hugging Face lays them out.

    With train and val but no test, val is the test split, as for image folders. A single file is split here.
    """
    files = _parquet_files(path)
    tables = {split: _read_parquet(paths) for split, paths in files.items() if paths}
    first = next(iter(tables.values()))
    names = _parquet_class_names(first, tables)
    splits = {split: _parquet_split(table, path / split, names) for split, table in tables.items()}
    if list(splits) == ["all"]:
        return splits["all"], None, None, names
    return splits["train"], splits.get("test", splits.get("val")), splits["val"] if len(splits) == 3 else None, names


def _parquet_files(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        return {"all": [path]}
    files = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if not files:
        raise UsageError(f"{path} holds no .parquet file")
    found = {split: [f for f in files if f.name.startswith(split)] for split in ("train", "val", "test")}
    if not found["train"]:
        if any(found.values()):
            raise UsageError(f"{path} holds {', '.join(f.name for f in files)} but no train*.parquet")
        return {"all": files}
    return found


def _read_parquet(paths: Sequence[Path]) -> pa.Table:
    try:
        return pa.concat_tables([pq.read_table(p) for p in paths])
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{paths[0]} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _column(table: pa.Table, choices: Sequence[str], path: Path) -> pa.ChunkedArray:
    for name in choices:
        if name in table.column_names:
            return table.column(name)
    raise UsageError(f"{path}: a column named {' or '.join(choices)} is needed; got {', '.join(table.column_names)}")


_LABEL_COLUMNS = ("label", "labels", "fine_label")


def _parquet_class_names(table: pa.Table, tables: dict[str, pa.Table]) -> list[str]:
    """From the schema's metadata (Hugging Face features or `class_names`) where present, else from the labels."""
    metadata = table.schema.metadata or {}
    if b"class_names" in metadata:
        text = metadata[b"class_names"].decode()
        return list(json.loads(text)) if text.startswith("[") else text.split(",")
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    for column in _LABEL_COLUMNS:
        if "names" in features.get(column, {}):
            return list(features[column]["names"])
    labels = [_column(t, _LABEL_COLUMNS, Path(split)).to_numpy() for split, t in tables.items()]
    distinct = np.unique(np.concatenate(labels))
    if np.issubdtype(distinct.dtype, np.integer):
        return [str(label) for label in range(int(distinct.max()) + 1)]
    return [str(label) for label in distinct]


def _parquet_split(table: pa.Table, path: Path, names: Sequence[str]) -> Split:
    images = _column(table, ("image", "img"), path)
    if pa.types.is_struct(images.type):
        images = pa.chunked_array([chunk.field("bytes") for chunk in images.chunks])
    if not (pa.types.is_binary(images.type) or pa.types.is_large_binary(images.type)):
        raise UsageError(f"{path}: images are encoded bytes, or a struct with a field `bytes`; got {images.type}")
    encoded = images.to_pylist()
    missing = next((i for i, data in enumerate(encoded) if not data), None)
    if missing is not None:
        raise UsageError(f"corrupt image {path}, row {missing}: no bytes")
    labels = _parquet_labels(_column(table, _LABEL_COLUMNS, path), path, names)
    return Split.whole(EncodedImages(encoded, [f"{path}, row {i}" for i in range(len(encoded))]), labels)


def _parquet_labels(column: pa.ChunkedArray, path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    if pa.types.is_integer(column.type) and column.null_count == 0:
        return np.asarray(column.to_numpy(), np.int64)
    index = {name: i for i, name in enumerate(names)}
    try:
        return np.asarray([index[label] for label in column.to_pylist()], np.int64)
    except KeyError as error:
        raise UsageError(f"{path}: label {error} is not one of {', '.join(names)}") from None
