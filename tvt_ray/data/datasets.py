"""The table of datasets, and those known by name. Adding one is a function and a row in `DATASETS`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import socket
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from tvt_ray.data.folders import image_folder
from tvt_ray.data.grouping import grouped
from tvt_ray.data.images import ArrayImages, EncodedImages
from tvt_ray.data.layout import how_to_unpack, listing, not_there
from tvt_ray.data.parquet import holds_tables, is_parquet, parquet_dataset
from tvt_ray.data.pixels import Decoding
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.sheets import ENDINGS, is_sheet
from tvt_ray.data.splits import CARVED, Dataset, Loaded, Split, carve
from tvt_ray.data.survey import duplicate_notes
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location, check_no_password, first_line, shown, within_folder
from tvt_ray.storage.patience import ANSWER_S
from tvt_ray.strict import parse_json

Loader = Callable[[DataSettings, Path], Loaded]
LOCAL = "file://"  # before an absolute path


def load_dataset(settings: DataSettings) -> Dataset:
    """Raises UsageError for an unknown name, a missing path, an empty split, a class that lacks images.

    Every class has images in each split that is carved here.
    """
    check_name(settings)
    name, _, path = settings.name.partition(":")
    loader, _ = DATASETS[name]
    check_place(settings.name)
    loaded = Loaded(*loader(settings, Path(path)))
    loaded = loaded._replace(class_names=tuple(shown(name) for name in loaded.class_names))  # as any terminal takes it
    _check_classes(settings.name, loaded)
    return _carved(settings, grouped(loaded, settings))


def recarved(data: Dataset, settings: DataSettings) -> Dataset:
    """What `load_dataset` gives, carved anew from what `data` was carved from; read again only where that differs.

    What was decoded once is read again, so this comes before.
    """
    if settings == data.settings:
        return data
    if data.loaded is None or data.settings is None:
        return load_dataset(settings)
    carving = data.settings.model_dump(include={"val_fraction", "test_fraction", "split_seed"})
    only_the_carving = settings.model_copy(update=carving) == data.settings
    return _carved(settings, data.loaded) if only_the_carving else load_dataset(settings)


def check_name(settings: DataSettings) -> None:
    """Raises UsageError for a name that is in no row of the table, lacks its path, or has one that no row reads."""
    if "://" in settings.name:
        check_no_password(settings.name)
        raise UsageError(
            f"dataset {shown(settings.name)!r}: datasets are read from a disk; copy this one to a folder first"
            f"{how_to_unpack([Path(settings.name.rpartition('/')[2])])}"
        )
    name, colon, path = settings.name.partition(":")
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        place = "" if os.path.exists(settings.name) else ", and no folder or file is called so"  # noqa: PTH110 (of any text)
        raise UsageError(f"unknown dataset {settings.name!r}{hint}{place}; choices: {', '.join(describe_datasets())}")
    _, takes_path = DATASETS[name]
    if colon and not takes_path:
        raise UsageError(f"dataset {name!r} takes no path; it is read from data.root ({settings.root})")
    if takes_path and not path:
        raise UsageError(f"dataset {settings.name!r} needs a path, as in {name}:PATH")


def dataset_name(text: str) -> str:
    """A name of the table stays. A path alone is an image folder, or Parquet where it is such a file or holds some.

    Raises UsageError for a path that is not there, and for a file that is neither.
    """
    if not text or text.partition(":")[0] in DATASETS or ("://" in text and not text.startswith(LOCAL)):
        return text
    path = Path(urllib.request.url2pathname(text.removeprefix(LOCAL))) if text.startswith(LOCAL) else Path(text)
    path = path.expanduser()
    if path.is_dir():
        return f"{'parquet' if holds_tables(path) else 'imagefolder'}:{path}"
    if path.exists():
        return f"{_kind_of_file(path)}:{path}"
    if len(path.parts) == 1 and not any(char in text for char in "*?[~."):
        return text  # a name, or a folder's: `check_name` says what there is
    if any(char in text for char in "*?[") and path.parent.is_dir():
        raise UsageError(f"{shown(text)} is a pattern; a dataset is a folder: {shown(path.parent)}")
    raise not_there(path, text)


def check_place(name: str) -> None:
    """Raises UsageError for a name with a path that is not there; it imports no torch, and is asked first."""
    kind, _, path = name.partition(":")
    if DATASETS.get(kind, (None, False))[1] and path and "://" not in path and not Path(path).expanduser().exists():
        raise UsageError(f"dataset {name!r}: there is no {shown(path)}")


def check_layout(asked: Mapping[str, Any]) -> None:
    """Raises UsageError for an image folder whose files and tables cannot be read as a dataset.

    No image is decoded, and torch is not imported, so that it is said at once. `asked`: of the section `data`; wrong
    settings are said elsewhere.
    """
    kind, _, path = str(asked.get("name", "")).partition(":")
    if kind != "imagefolder" or not path:
        return
    try:
        settings = DataSettings(**asked)
    except ValidationError:
        return
    image_folder(settings, Path(path))


def _kind_of_file(path: Path) -> str:
    if is_parquet(path):
        return "parquet"
    if is_sheet(path):
        return "imagefolder"
    raise UsageError(
        f"{shown(path)} is no dataset: a folder of class folders, Parquet, or a table of labels "
        f"({', '.join(ENDINGS)}) is{how_to_unpack([path])}"
    )


def check_outside(path: Location, dataset: str) -> None:
    """Raises UsageError for a folder in a dataset's own, where what is written would be read as a part of it."""
    folder = dataset.partition(":")[2]
    if folder and isinstance(path, Path) and path.resolve().is_relative_to(Path(folder).resolve()):
        raise UsageError(
            f"{path} lies in the dataset's own folder, so that what is written there would be read as a part of it; "
            "choose a folder beside it"
        )


def describe_datasets() -> list[str]:
    """The names as people write them."""
    return [f"{name}:PATH" if takes_path else name for name, (_, takes_path) in DATASETS.items()]


def _check_classes(name: str, loaded: Loaded) -> None:
    names = loaded.class_names
    twice = [each for each, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"dataset {name!r} has more than one class called {listing(twice)}")
    if len(names) < 2:
        raise UsageError(f"dataset {name!r} has the single class {listing(names)}; classification needs at least two")
    for split_name, split in _given(loaded).items():
        if len(split) == 0:
            raise UsageError(f"dataset {name!r}: the split {split_name} is empty")
        low, high = split.labels.min(), split.labels.max()
        if low < 0 or high >= len(names):
            raise UsageError(
                f"dataset {name!r}: labels go from 0 to {len(names) - 1} for {len(names)} classes; "
                f"got {low} to {high} in {split_name}"
            )
    missing = _missing(loaded.train, names)
    if missing:
        raise UsageError(f"dataset {name!r} has no training images of the class(es) {listing(missing)}")


def _given(loaded: Loaded) -> dict[str, Split]:
    splits = {"train": loaded.train, "val": loaded.val, "test": loaded.test}
    return {name: split for name, split in splits.items() if split is not None}


def _missing(split: Split, names: Sequence[str]) -> list[str]:
    counts = np.bincount(split.labels, minlength=len(names))
    return [name for name, count in zip(names, counts, strict=True) if count == 0]


def _carved(settings: DataSettings, loaded: Loaded) -> Dataset:
    """With test and validation split off the training images where they were not given."""
    train, test, val, names, notes, origins, _ = loaded
    lacking = {name: _missing(split, names) for name, split in _given(loaded).items()}
    said = [f"{name} has no images of {listing(classes)}" for name, classes in lacking.items() if classes]
    wanted = [name for name, split in (("test", test), ("validation", val)) if split is None]
    _check_rare(settings.name, train, names, wanted)
    if test is None:
        train, test = carve(train, settings.test_fraction, settings.split_seed, leave=len(wanted))
        origins = {**origins, "test": f"{CARVED}: {settings.test_fraction:.0%} of the images"}
    if val is None:
        train, val = carve(train, settings.val_fraction, settings.split_seed)
        origins = {**origins, "val": f"{CARVED}: {settings.val_fraction:.0%} of the training images"}
    data = Dataset(settings.name, train, val, test, tuple(names), (*notes, *said), origins, settings, loaded)
    return dataclasses.replace(data, notes=(*data.notes, *duplicate_notes(data)))


def _check_rare(name: str, train: Split, names: Sequence[str], wanted: Sequence[str]) -> None:
    counts = np.bincount(train.labels, minlength=len(names))
    rare = [f"{each} ({count:,})" for each, count in zip(names, counts, strict=True) if count <= len(wanted)]
    if rare:
        raise UsageError(
            f"dataset {name!r}: every class needs {len(wanted) + 1} images, one for training and one for each split "
            f"that is carved from it ({' and '.join(wanted)}); too few: {listing(rare)}"
        )


def digits(settings: DataSettings, path: Path) -> Loaded:
    """1,797 scans of handwritten digits, 8 x 8 with 17 grey levels, shipped with scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    source = ArrayImages(np.repeat(grey[..., None], 3, axis=3))
    return Loaded(Split.whole(source, bunch.target), None, None, [str(digit) for digit in range(10)])


def _torchvision_dataset(name: str, settings: DataSettings, **kwargs: Any) -> Any:
    """One of torchvision's dataset classes; a failed download becomes one line."""
    from tvt_ray.vision_compat import ensure_torchvision  # imports torch

    ensure_torchvision()
    from torchvision import datasets

    try:
        with _answers_in_time():
            return getattr(datasets, name)(settings.root, download=settings.download, **kwargs)
    except (OSError, RuntimeError) as error:
        wanted = "could not be downloaded" if settings.download else "data.download is off"
        where = f"{name} is not (whole) under data.root {settings.root}"
        raise UsageError(f"{where} and {wanted}: {first_line(error)}") from None


@contextlib.contextmanager
def _answers_in_time() -> Iterator[None]:
    """torchvision's downloads have no time limit of their own; here one for each part of what is sent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def cifar(class_name: str) -> Loader:
    """The loader of torchvision's class of that name."""

    def load(settings: DataSettings, path: Path) -> Loaded:
        train, test = (_torchvision_dataset(class_name, settings, train=is_train) for is_train in (True, False))
        splits = [Split.whole(ArrayImages(part.data), part.targets) for part in (train, test)]
        return Loaded(splits[0], splits[1], None, train.classes)

    return load


def flowers102(settings: DataSettings, path: Path) -> Loaded:
    """Training images are the official train and val splits together (2,040), as in the published recipe."""
    parts = {split: _torchvision_dataset("Flowers102", settings, split=split) for split in ("train", "val", "test")}
    # torchvision offers the decoded items alone; reading 8,189 photos to learn their labels would take a minute.
    files = {split: [Path(file) for file in part._image_files] for split, part in parts.items()}
    labels = {split: list(part._labels) for split, part in parts.items()}
    files["train"], labels["train"] = files["train"] + files["val"], labels["train"] + labels["val"]
    images = {split: EncodedImages(paths, decoding=settings.decoding) for split, paths in files.items()}
    names = getattr(parts["train"], "classes", None) or [f"flower{i}" for i in range(102)]
    return Loaded(
        Split.whole(images["train"], labels["train"]), Split.whole(images["test"], labels["test"]), None, names
    )


def chaoyang(settings: DataSettings, path: Path) -> Loaded:
    """Colon tissue (Zhu et al. 2021): train.json and test.json list {"name": file, "label": 0 to 3}.

    The data needs the authors' permission, so there is nothing to download.
    """
    root = settings.root / "chaoyang"
    if not (root / "train.json").exists() or not (root / "test.json").exists():
        raise UsageError(f"chaoyang is read from {root}/train.json and test.json with the images they name beside them")
    train, test = (_json_split(root / f"{split}.json", settings.decoding) for split in ("train", "test"))
    return Loaded(train, test, None, ("normal", "serrated", "adenocarcinoma", "adenoma"))


def _json_split(path: Path, decoding: Decoding) -> Split:
    try:
        entries = parse_json(path.read_text())
        names, labels = [str(e["name"]) for e in entries], [int(e["label"]) for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'{path} is not a JSON list of {{"name": …, "label": …}}: {error!r}') from None
    outside = [name for name in names if not within_folder(path.parent, name)]
    if outside:
        raise UsageError(f"{path} names {listing(outside, 1)}, which is outside of its folder")
    return Split.whole(EncodedImages([path.parent / name for name in names], decoding=decoding), labels)


# name -> (loader, whether the name is followed by :PATH)
DATASETS: dict[str, tuple[Loader, bool]] = {
    "digits": (digits, False),
    "cifar10": (cifar("CIFAR10"), False),
    "cifar100": (cifar("CIFAR100"), False),
    "flowers102": (flowers102, False),
    "chaoyang": (chaoyang, False),
    "imagefolder": (image_folder, True),
    "parquet": (parquet_dataset, True),
}
