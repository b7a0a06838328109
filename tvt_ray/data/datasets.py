"""The table of datasets. Adding one is a function here and a row in `DATASETS`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tvt_ray.data.images import ArrayImages, EncodedImages, FileImages
from tvt_ray.data.splits import Dataset, Split, carve
from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision

CHAOYANG_CLASSES = ("normal", "serrated", "adenocarcinoma", "adenoma")


class DataSettings(BaseModel):
    """Which dataset, and how it is split where it does not come split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "digits"  # a name in DATASETS, with :PATH for those that read a path
    root: Path = Path("data")  # where torchvision's datasets are kept and downloaded to
    download: bool = True
    val_fraction: float = Field(0.1, gt=0, lt=1)  # of the training images
    test_fraction: float = Field(0.2, gt=0, lt=1)  # of all images, where there is no test split
    split_seed: int = 0


# What a loader gives: training images, test images or None where they are yet to be carved, validation likewise.
Parts = tuple[Split, Split | None, Split | None, Sequence[str]]


def load_dataset(settings: DataSettings) -> Dataset:
    """Raises UsageError for an unknown name, a missing path, an empty class, labels that do not fit."""
    name, colon, path = settings.name.partition(":")
    if name not in DATASETS:
        raise UsageError(
            f"unknown dataset {settings.name!r}{_nearest(name)}; choices: {', '.join(describe_datasets())}"
        )
    loader, takes_path = DATASETS[name]
    if takes_path and not path:
        raise UsageError(f"dataset {name!r} needs a path, as in {name}:PATH")
    if colon and not takes_path:
        raise UsageError(f"dataset {name!r} takes no path; it is read from data.root ({settings.root})")
    if takes_path and not Path(path).exists():
        raise UsageError(f"dataset {settings.name!r}: there is no {path}")
    train, test, val, class_names = loader(settings, Path(path))
    for part in filter(None, (train, test, val)):
        _check_labels(settings.name, part, len(class_names))
    if test is None:
        train, test = carve(train, settings.test_fraction, settings.split_seed, "test")
    if val is None:
        train, val = carve(train, settings.val_fraction, settings.split_seed, "validation")
    return Dataset(settings.name, train, val, test, tuple(class_names))


def describe_datasets() -> list[str]:
    return [f"{name}:PATH" if takes_path else name for name, (_, takes_path) in DATASETS.items()]


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, DATASETS, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_labels(name: str, split: Split, num_classes: int) -> None:
    if len(split) == 0:
        raise UsageError(f"dataset {name!r} has an empty split")
    low, high = split.labels.min(), split.labels.max()
    if low < 0 or high >= num_classes:
        raise UsageError(
            f"dataset {name!r}: labels go from 0 to {num_classes - 1} for {num_classes} classes; got {low} to {high}"
        )


def _digits(settings: DataSettings, path: Path) -> Parts:
    """1,797 scans of handwritten digits, 8 x 8 with 17 grey levels, shipped with scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    source = ArrayImages(np.repeat(grey[..., None], 3, axis=3))
    return Split.whole(source, bunch.target), None, None, [str(digit) for digit in range(10)]


def _torchvision_dataset(name: str, settings: DataSettings, **kwargs: Any) -> Any:
    """One of torchvision's dataset classes; a failed download becomes one line."""
    ensure_torchvision()
    from torchvision import datasets

    try:
        return getattr(datasets, name)(settings.root, download=settings.download, **kwargs)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        wanted = "could not be downloaded" if settings.download else "data.download is off"
        raise UsageError(f"{name} is not (whole) under data.root {settings.root} and {wanted}: {reason}") from None


def _cifar(class_name: str) -> Callable[[DataSettings, Path], Parts]:
    def load(settings: DataSettings, path: Path) -> Parts:
        train, test = (_torchvision_dataset(class_name, settings, train=is_train) for is_train in (True, False))
        splits = [Split.whole(ArrayImages(part.data), part.targets) for part in (train, test)]
        return splits[0], splits[1], None, train.classes

    return load


def _flowers102(settings: DataSettings, path: Path) -> Parts:
    """Training images are the official train and val splits together (2,040), as in the published recipe."""
    parts = {split: _torchvision_dataset("Flowers102", settings, split=split) for split in ("train", "val", "test")}
    # torchvision offers the decoded items alone; reading 8,189 photos to learn their labels would take a minute.
    files = {split: list(part._image_files) for split, part in parts.items()}
    labels = {split: list(part._labels) for split, part in parts.items()}
    train = Split.whole(FileImages(files["train"] + files["val"]), labels["train"] + labels["val"])
    names = getattr(parts["train"], "classes", None) or [f"flower{i}" for i in range(102)]
    return train, Split.whole(FileImages(files["test"]), labels["test"]), None, names


def _chaoyang(settings: DataSettings, path: Path) -> Parts:
    """Colon tissue (Zhu et al. 2021): train.json and test.json list {"name": file, "label": 0 to 3}.

    The data needs the authors' permission, so there is nothing to download.
    """
    root = settings.root / "chaoyang"
    if not (root / "train.json").exists() or not (root / "test.json").exists():
        raise UsageError(f"chaoyang is read from {root}/train.json and test.json with the images they name beside them")
    train, test = (_json_split(root / f"{split}.json") for split in ("train", "test"))
    return train, test, None, CHAOYANG_CLASSES


def _json_split(path: Path) -> Split:
    try:
        entries = json.loads(path.read_text())
        names, labels = [str(e["name"]) for e in entries], [int(e["label"]) for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'{path} is not a JSON list of {{"name": …, "label": …}}: {error!r}') from None
    return Split.whole(FileImages([path.parent / name for name in names]), labels)


def _imagefolder(settings: DataSettings, path: Path) -> Parts:
    """A folder per class, either directly in PATH or in PATH/train beside PATH/val and/or PATH/test.

    With train and val but no test, val is the test split (nothing is chosen on it) and validation is carved from train.
    """
    if not (path / "train").is_dir():
        train, names = _class_folders(path)
        return train, None, None, names
    folders = [name for name in ("train", "val", "test") if (path / name).is_dir()]
    loaded = {folder: _class_folders(path / folder) for folder in folders}
    names = loaded["train"][1]
    for folder, (_, found) in loaded.items():
        if found != names:
            raise UsageError(f"{path / folder} has the classes {', '.join(found)}; train has {', '.join(names)}")
    splits = {folder: split for folder, (split, _) in loaded.items()}
    return splits["train"], splits.get("test", splits.get("val")), splits["val"] if len(splits) == 3 else None, names


def _class_folders(path: Path) -> tuple[Split, list[str]]:
    ensure_torchvision()
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    try:
        classes, class_to_index = find_classes(str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} has no class folders: an image folder holds one folder per class") from None
    samples = make_dataset(str(path), class_to_index, extensions=IMG_EXTENSIONS, allow_empty=True)
    counts = np.bincount([label for _, label in samples], minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        raise UsageError(
            f"{path}: no images in the class folder(s) {', '.join(empty)}; "
            f"every class needs some of {', '.join(IMG_EXTENSIONS)}"
        )
    if len(classes) < 2:
        raise UsageError(f"{path} has the single class {classes[0]}; classification needs at least two class folders")
    return Split.whole(FileImages([Path(file) for file, _ in samples]), [label for _, label in samples]), classes


def _parquet(settings: DataSettings, path: Path) -> Parts:
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


Loader = Callable[[DataSettings, Path], Parts]

# name -> (loader, whether the name is followed by :PATH)
DATASETS: dict[str, tuple[Loader, bool]] = {
    "digits": (_digits, False),
    "cifar10": (_cifar("CIFAR10"), False),
    "cifar100": (_cifar("CIFAR100"), False),
    "flowers102": (_flowers102, False),
    "chaoyang": (_chaoyang, False),
    "imagefolder": (_imagefolder, True),
    "parquet": (_parquet, True),
}
