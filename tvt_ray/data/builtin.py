"""Datasets that are known by name: digits, CIFAR, Flowers-102, Chaoyang."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tvt_ray.data.images import ArrayImages, Decoding, EncodedImages
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Loaded, Split
from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision

CHAOYANG_CLASSES = ("normal", "serrated", "adenocarcinoma", "adenoma")


def digits(settings: DataSettings, path: Path) -> Loaded:
    """1,797 scans of handwritten digits, 8 x 8 with 17 grey levels, shipped with scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    source = ArrayImages(np.repeat(grey[..., None], 3, axis=3))
    return Loaded(Split.whole(source, bunch.target), None, None, [str(digit) for digit in range(10)])


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


def cifar(class_name: str) -> Callable[[DataSettings, Path], Loaded]:
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
    return Loaded(train, test, None, CHAOYANG_CLASSES)


def _json_split(path: Path, decoding: Decoding) -> Split:
    try:
        entries = json.loads(path.read_text())
        names, labels = [str(e["name"]) for e in entries], [int(e["label"]) for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'{path} is not a JSON list of {{"name": …, "label": …}}: {error!r}') from None
    return Split.whole(EncodedImages([path.parent / name for name in names], decoding=decoding), labels)
