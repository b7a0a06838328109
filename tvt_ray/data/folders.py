"""Image folders: a folder per class, in a folder per split or not."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tvt_ray.data.images import EncodedImages
from tvt_ray.data.labelled import labelled_images, metadata_of
from tvt_ray.data.layout import (
    SPLITS,
    WORDS,
    Found,
    counted,
    how_to_read,
    how_to_unpack,
    ignored_files,
    is_image,
    listed,
    listing,
    pasted,
    split_of,
    unread,
    walk,
    within,
)
from tvt_ray.data.names import unify
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.sheets import Files, is_sheet
from tvt_ray.data.signs import check_are_classes, sheet_of, where_classes_are
from tvt_ray.data.splits import Loaded, Split, place_splits
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import shown

LAYOUT = "PATH/CLASS/*.jpg, PATH/train/CLASS/*.jpg beside PATH/val and PATH/test, or PATH/CLASS/train/*.jpg"
ENDINGS = ".jpg, .png, .gif, .bmp, .tif, .webp or another ending that PIL knows"


def image_folder(settings: DataSettings, path: Path) -> Loaded:
    """A folder per class: in PATH, in PATH/train beside PATH/val and PATH/test, or with such folders in each class.

    `split_names` says what a split may be called. Folders so called are splits where they hold class folders, else
    classes. With train and val but no test, val is the test split (nothing is chosen on it) and validation is carved
    from train. A table says the classes where `settings.labels` names one, or where it is Hugging Face's metadata.csv.

    Raises UsageError for what cannot be read so, and for folders that look like something else than classes unless
    `settings.classes` says that they are; what is left out is in the notes.
    """
    if is_sheet(path) and path.is_file():
        return labelled_images(settings.model_copy(update={"labels": path}), path.parent)
    if not path.is_dir():
        raise UsageError(f"{shown(path)} is no folder; an image folder is {LAYOUT}")
    folders, files = listed(path)
    if settings.labels is not None or (places := metadata_of(path)):
        return labelled_images(settings, path, () if settings.labels is not None else places)
    splits = {folder: split for folder in folders if (split := split_of(folder.name)) and _holds_classes(folder)}
    if "train" not in splits.values() and any(walk(each, path).images for each in folders if each not in splits):
        splits = {}  # a class may be called test tube, and hold a folder for each day
    reader = _Reader(path, settings)
    reader.pass_over(files)
    return reader.read_splits(folders, splits) if splits else reader.read_classes(folders)


def _holds_classes(folder: Path) -> bool:
    """Whether there are folders with images in it."""
    return any(walk(below, folder).images for below in listed(folder)[0])


class _Reader:
    """One folder's reading: collects what is to be said of it."""

    def __init__(self, root: Path, settings: DataSettings) -> None:
        self.root, self.settings = root, settings
        self.notes: list[str] = []
        self.others: list[Path] = []

    def pass_over(self, files: Iterable[Path]) -> None:
        """Files beside class folders or splits belong to no class."""
        files = list(files)
        images = [file for file in files if is_image(file)]
        self.others += [file for file in files if not is_image(file)]
        if images:
            example = within(self.root, images[0])
            self.notes.append(f"{counted(len(images), 'image')} in no class folder left out (such as {example})")

    def finish(self, found: Mapping[str, Split], names: Sequence[str], origins: Mapping[str, str]) -> Loaded:
        """The parts, with all notes."""
        notes = [*self.notes, *ignored_files(self.others, self.root, "image")]
        return place_splits(found, [shown(name) for name in names], notes, origins)

    # PATH/SPLIT/CLASS -------------------------------------------------------------------------------------------------

    def read_splits(self, folders: Sequence[Path], splits: Mapping[Path, str]) -> Loaded:
        """Of the `folders` in PATH, those that are splits."""
        by_split = {split: [folder for folder in splits if splits[folder] == split] for split in SPLITS}
        for split, same in by_split.items():
            if len(same) > 1:
                raise UsageError(
                    f"{shown(self.root)} has {len(same)} folders for the split {split}: "
                    f"{listing(folder.name for folder in same)}; keep one, or put their images together"
                )
        if not by_split["train"]:
            have = listing(f"{folder.name} ({split})" for folder, split in splits.items())
            words = " or ".join(WORDS["train"])
            raise UsageError(f"{shown(self.root)} has the split {have} but none to train on, called {words}")
        self._leave_out([folder for folder in folders if folder not in splits], by_split["train"][0], len(splits))
        chosen = {split: same[0] for split, same in by_split.items() if same}
        classes = self._unified({split: self._class_folders(folder) for split, folder in chosen.items()})
        names = self._check_classes(chosen, classes)
        found = {split: self._split(names, classes[split]) for split in chosen}
        return self.finish(found, names, {split: f"{shown(folder.name)}/" for split, folder in chosen.items()})

    def _leave_out(self, folders: Sequence[Path], train: Path, num_splits: int) -> None:
        """Says which folders beside the splits are not used. Raises UsageError where train may be a class."""
        for folder in folders:
            num_images = len(walk(folder, self.root).images)
            if split_of(folder.name) and not num_images:
                raise UsageError(f"{shown(folder)} holds no images: a split has some, or its folder is not there")
            inner = {below.name for below in listed(folder)[0]} & {below.name for below in listed(train)[0]}
            if num_splits == 1 and num_images and (inner or _holds_classes(folder)):
                what = f"folders of one name ({listing(sorted(inner))})" if inner else "folders with images"
                raise UsageError(
                    f"{shown(train)} and {shown(folder)} hold {what}: call both train, val or test if they are splits, "
                    "and neither if they are classes"
                )
            why = "no class folders are in it" if split_of(folder.name) else "its name says no split"
            left = f"with {counted(num_images, 'image')} " if num_images else ""
            self.notes.append(f"folder {shown(folder.name)} {left}left out: {why}")

    def _class_folders(self, split: Path) -> dict[str, list[Path]]:
        """Images by class of a split's folder."""
        folders, files = listed(split)
        self.pass_over(files)
        return self._by_class(split, folders)

    def _check_classes(
        self, chosen: Mapping[str, Path], classes: Mapping[str, Mapping[str, Sequence[Path]]]
    ) -> list[str]:
        """The classes of train. Raises UsageError where another split has more, or none at all."""
        names = list(classes["train"])
        self._check_filled(chosen["train"], classes["train"])
        for split, images in classes.items():
            unknown = [name for name in images if images[name] and name not in names]
            if unknown:
                what = "the classes" if len(unknown) > 1 else "the class"
                raise UsageError(
                    f"{shown(chosen[split])} has {what} {listing(unknown)}, which {shown(chosen['train'])} lacks: "
                    f"nothing could learn them; train has {listing(names)}"
                )
        return names

    # PATH/CLASS and PATH/CLASS/SPLIT ----------------------------------------------------------------------------------

    def read_classes(self, folders: Sequence[Path]) -> Loaded:
        """All `folders` are classes."""
        if not folders:
            raise UsageError(f"{shown(self.root)} has no class folders{self._hint()}; an image folder is {LAYOUT}")
        images = self._by_class(self.root, folders)
        named = [folder.name for folder in folders if split_of(folder.name)]
        if len(named) == len(folders):
            raise UsageError(
                f"{shown(self.root)}: no class folders are in {listing(named)}, so that the images have no classes"
                f"{self._hint()}; an image folder is {LAYOUT}"
            )
        self._check_filled(self.root, images)
        self.notes += [f"folder {shown(name)} is read as a class: it holds images, no class folders" for name in named]
        by_split = self._inner_splits(images) if self.settings.classes in (None, "outer") else None
        if by_split is None:
            if self.settings.classes is None:
                check_are_classes(self.root, images, self.others)
                self._say_inner(images)
            images = self._unified({"train": images})["train"]
            return self.finish({"train": self._split(list(images), images)}, list(images), {})
        by_split = self._unified(by_split)
        names = list(by_split["train"])
        found = {split: self._split(names, by_split[split]) for split in by_split}
        return self.finish(found, names, {split: f"{split} folders in each class" for split in by_split})

    def _say_inner(self, images: Mapping[str, Sequence[Path]]) -> None:
        """Says where the images of all classes lie in folders below, several of them in one class at least."""
        inner = {name: {path.relative_to(self.root / name).parts[:-1] for path in images[name]} for name in images}
        if all(() not in parts for parts in inner.values()) and any(len(parts) > 1 for parts in inner.values()):
            example = next(f"{name}/{'/'.join(min(parts))}" for name, parts in inner.items() if len(parts) > 1)
            self.notes.append(
                f"the classes are {listing(images, 4)}, and folders below them are not told apart; "
                f"--set data.classes=path makes {shown(example)} a class"
            )

    def _hint(self) -> str:
        """Where the classes are to be found instead, where something says so."""
        found = walk(self.root)
        if sheet := sheet_of(Files(self.root, found.images), found.others):
            return f"; --labels {pasted(sheet.path)} reads them from there"
        if packed := how_to_unpack(found.others):
            return packed
        with contextlib.suppress(UsageError):  # what is beside a dataset may be closed
            folders, files = listed(self.root.parent)
            beside = [each.name for each in folders if any(map(is_image, listed(each)[1]))]
            if self.root.name in beside and len(beside) > 1 and not any(map(is_image, files)):
                return f"; is the dataset the folder above, {shown(self.root.parent)}, with {listing(beside, 4)}?"
        return ""

    def _inner_splits(self, images: Mapping[str, Sequence[Path]]) -> dict[str, dict[str, list[Path]]] | None:
        """Images by split and class where each class's lie in split folders of its own; None where they do not."""
        inner = {name: {path: self._inner_split(name, path) for path in paths} for name, paths in images.items()}
        named = [path for found in inner.values() for path, split in found.items() if split]
        if not named:
            return None
        if not all(split for found in inner.values() for split in found.values()):
            example = within(self.root, named[0].parent)
            self.notes.append(f"{counted(len(named), 'image')} in folders like {example} are not kept apart as a split")
            return None
        splits = {
            split: {name: [path for path in found if found[path] == split] for name, found in inner.items()}
            for split in SPLITS
        }
        kept = {split: by_class for split, by_class in splits.items() if any(by_class.values())}
        self._check_filled(self.root, kept.get("train", {name: [] for name in images}), "for training ")
        return kept

    def _inner_split(self, name: str, path: Path) -> str | None:
        parts = path.relative_to(self.root / name).parts
        return split_of(parts[0]) if len(parts) > 1 else None

    # Both -------------------------------------------------------------------------------------------------------------

    def _by_class(self, place: Path, folders: Sequence[Path]) -> dict[str, list[Path]]:
        """Images of the folders in `place` by what `data.classes` calls their class."""
        outer = {folder.name: self._images(folder) for folder in folders}
        if self.settings.classes in (None, "outer"):
            return outer
        found: dict[str, list[Path]] = {}
        for path in itertools.chain.from_iterable(outer.values()):
            parts = path.relative_to(place).parts[:-1]
            name = parts[-1] if self.settings.classes == "inner" else "/".join(parts)
            found.setdefault(name, []).append(path)
        return {name: found[name] for name in sorted(found)}

    def _unified(self, images: Mapping[str, Mapping[str, Sequence[Path]]]) -> dict[str, dict[str, list[Path]]]:
        """Images by split and class, those of one class together, however folders write its name."""
        classes, notes = unify(images, self.settings.merge_names, shown(self.root))
        self.notes += notes
        found: dict[str, dict[str, list[Path]]] = {split: {} for split in images}
        for split, by_name in images.items():
            for name, paths in by_name.items():
                found[split].setdefault(classes[split][name], []).extend(paths)
        return found

    def _images(self, folder: Path) -> list[Path]:
        found: Found = walk(folder, self.root)
        self.others += found.others
        if found.repeated:
            example = within(self.root, found.repeated[0])
            what = counted(len(found.repeated), "link")
            self.notes.append(f"{what} to folders that are read already left out (such as {example})")
        return found.images

    def _check_filled(self, folder: Path, classes: Mapping[str, Sequence[Path]], purpose: str = "") -> None:
        """Raises UsageError that names classes without images, or the only one."""
        empty = [name for name, images in classes.items() if not images]
        if empty:
            inside = [path for path in self.others if any(path.is_relative_to(folder / name) for name in empty)]
            example = f" (but {within(folder, inside[0])})" if inside else ""
            raise UsageError(
                f"{shown(folder)}: no images {purpose}in the class folder(s) {listing(empty)}{example}; "
                f"images end in {ENDINGS}{how_to_read(unread(inside))}"
            )
        if len(classes) == 1:
            (name,) = classes
            raise UsageError(
                f"{shown(folder)} has the single class {shown(name)}; classification needs at least two"
                f"{where_classes_are(folder) or self._hint()}"
            )

    def _split(self, names: Sequence[str], images: Mapping[str, Sequence[Path]]) -> Split:
        paths = [path for name in names for path in images.get(name, ())]
        labels = [label for label, name in enumerate(names) for _ in images.get(name, ())]
        return Split.whole(EncodedImages(paths, decoding=self.settings.decoding), labels)
