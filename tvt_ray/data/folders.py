"""Image folders: a folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tvt_ray.data.images import FileImages
from tvt_ray.data.settings import DataSettings, Parts
from tvt_ray.data.splits import Split
from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision


def image_folder(settings: DataSettings, path: Path) -> Parts:
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
