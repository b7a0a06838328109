"""Images whose classes a table says: --labels FILE, and Hugging Face's metadata.csv beside the images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvt_ray.data.images import EncodedImages
from tvt_ray.data.layout import SPLITS, counted, listed, listing, pasted, split_of, walk, within
from tvt_ray.data.names import unify
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.sheets import (
    Files,
    Sheet,
    file_column,
    is_sheet,
    labels_of,
    read_sheet,
    split_column,
    split_of_value,
)
from tvt_ray.data.splits import Loaded, Split, place_splits
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import shown

METADATA = ("metadata.csv", "metadata.jsonl")  # Hugging Face's names
FILE_NAME = "file_name"  # and the column that makes a table of that name theirs


@dataclass(frozen=True)
class Place:
    """A table, the folder in which its images lie, and the split that its rows are, where the place says so."""

    sheet: Sheet
    root: Path
    split: str | None = None


@dataclass(frozen=True)
class _Row:
    image: Path
    label: str
    split: str | None  # None: nothing says one
    said: str  # where it stands
    group: str | None  # what the column `data.group_by` has; None: there is no such column


def metadata_of(path: Path) -> list[Place]:
    """Hugging Face's tables in a folder, or in each of its split folders; none where there are none."""
    folders, files = listed(path)
    own = [Place(read_sheet(file), path) for file in files if file.name in METADATA]
    inner = [
        Place(read_sheet(file), folder, split)
        for folder in folders
        if (split := split_of(folder.name))
        for file in listed(folder)[1]
        if file.name in METADATA
    ]
    return [place for place in own or inner if FILE_NAME in place.sheet.columns]


def labelled_images(settings: DataSettings, path: Path, places: Sequence[Place] = ()) -> Loaded:
    """The images below PATH that a table gives a label (`data.labels`, or `places`).

    `data.labels` may be a folder with a table for each split: train.csv beside val.csv or test.csv.
    The columns of files and labels are found or set (`data.image_column`, `data.label_column`). A file is named by its
    path, its name or its name without the ending. Rows are train, val or test by a column that says so, by the place of
    their table, or by the folders of their images; else they are one set, which is split here. Images without a row and
    rows without an image are left out by a note.

    Raises UsageError for a table that cannot be read so, and for an image with two labels.
    """
    if not path.is_dir():
        raise UsageError(f"{shown(path)} is no folder: the images that {shown(settings.labels)} names lie in one")
    reader = _Reader(settings, path)
    if not places:
        assert settings.labels is not None
        places = reader.tables(settings.labels)
    rows = [row for place in places for row in reader.rows(place)]
    return reader.loaded(rows, places)


class _Reader:
    """One reading: collects what is to be said of it."""

    def __init__(self, settings: DataSettings, root: Path) -> None:
        self.settings, self.root = settings, root
        self.notes: list[str] = []

    def tables(self, labels: Path) -> list[Place]:
        """The table, or those of a folder that are called as splits. Of those but train, whoever has no labels is left
        out, as the test table of a competition. Raises UsageError where a folder has none.
        """
        if not labels.is_dir():
            beside = [path for path, split in _tables_of_splits(labels.parent).items() if split != "train"]
            if split_of(labels.stem) == "train" and beside:
                self.notes.append(
                    f"{listing(path.name for path in beside)} beside {shown(labels.name)} not read: "
                    f"--labels {pasted(labels.parent)} reads such tables as splits"
                )
            return [Place(read_sheet(labels), self.root)]
        sheets = _tables_of_splits(labels)
        if "train" not in sheets.values():
            raise UsageError(f"{shown(labels)} has no table called train.csv (.tsv, .jsonl) beside val and test")
        found = []
        for path, split in sheets.items():
            place = Place(read_sheet(path), self.root, split)
            try:
                labels_of(place.sheet, [], self.settings.label_column)
            except UsageError:
                if split == "train":
                    raise
                self.notes.append(f"{shown(path.name)} has no labels and is left out")
            else:
                found.append(place)
        return found

    def rows(self, place: Place) -> list[_Row]:
        """Those whose image is there, in the table's order."""
        sheet = place.sheet
        files = Files(place.root, walk(place.root, self.root).images)
        if not files.paths:
            raise UsageError(f"{shown(place.root)} holds no images")
        names = file_column(sheet, files, self.settings.image_column)
        says_split = None if place.split else split_column([name for name in sheet.columns if name != names])
        labels = labels_of(sheet, [names, *filter(None, [says_split])], self.settings.label_column)
        self.notes += labels.notes
        says_split = None if says_split in labels.columns else says_split
        found, absent, unlabelled = list[_Row](), list[int](), 0
        for number, (text, label) in enumerate(zip(sheet.columns[names], labels.texts, strict=True)):
            paths = self._of_split(files.find(text), place.split)
            if not paths:
                absent.append(number)
            elif len(paths) > 1:
                raise UsageError(
                    f"{sheet.row(number)}: {shown(text)} is the name of {len(paths)} images: "
                    f"{listing((within(self.root, each) for each in paths), 2)}; name them by their path from "
                    f"{shown(place.root)}"
                )
            elif label is None:
                unlabelled += 1
            else:
                split = place.split if says_split is None else self._split(sheet, says_split, number)
                group = self._group(sheet, number)
                found.append(_Row(paths[0], label, split, sheet.row(number), group))
        if absent:
            example = shown(sheet.columns[names][absent[0]])
            self.notes.append(f"{counted(len(absent), 'row')} of {sheet.path.name} left out: no such image ({example})")
        if unlabelled:
            self.notes.append(f"{counted(unlabelled, 'row')} of {sheet.path.name} without a label left out")
        if not found:
            raise UsageError(f"{shown(sheet.path)}: no row has an image below {shown(place.root)} and a label")
        return found

    def _of_split(self, paths: Sequence[Path], split: str | None) -> Sequence[Path]:
        """Of several images of a name those that lie in the folder of a split, where some do."""
        if len(paths) < 2 or split is None:
            return paths
        return [path for path in paths if split_of(path.relative_to(self.root).parts[0]) == split] or paths

    def _group(self, sheet: Sheet, number: int) -> str | None:
        column = sheet.columns.get(self.settings.group_by or "")
        return None if column is None else column[number] or ""

    def _split(self, sheet: Sheet, column: str, number: int) -> str | None:
        value = sheet.columns[column][number]
        return None if value is None else split_of_value(column, value)

    def loaded(self, rows: Sequence[_Row], places: Sequence[Place]) -> Loaded:
        """The rows by split, each image once."""
        rows = self._once(rows)
        by_split = self._by_split(rows)
        if not by_split.get("train"):
            raise UsageError(f"{shown(places[0].sheet.path)}: no row is of the training split")
        labels = {split: [row.label for row in each] for split, each in by_split.items()}
        where = shown(places[0].sheet.path)
        classes, notes = unify(labels, self.settings.merge_names, where)
        self.notes += notes
        names = in_order({classes["train"][label] for label in labels["train"]})
        numbers = {name: number for number, name in enumerate(names)}
        for split, each in by_split.items():
            for row in each:
                if classes[split][row.label] not in numbers:
                    raise UsageError(
                        f"{row.said}: the class {shown(row.label)} has no training image; train has {listing(names)}"
                    )
        several = [name for name in names if len(parts := set(name.split("|")) - {""}) > 1 and parts & set(names)]
        if several:
            self.notes.append(f"labels of several classes, as {shown(several[0])}, are each read as a class of its own")
        self._say_left_out({row.image for row in rows})
        found = {
            split: Split.whole(
                EncodedImages([row.image for row in each], decoding=self.settings.decoding),
                [numbers[classes[split][row.label]] for row in each],
            )
            for split, each in by_split.items()
        }
        tables = listing(within(self.root, place.sheet.path) for place in places)
        origins = dict.fromkeys(found, tables) if len(found) > 1 else {}
        groups = {split: [row.group for row in each if row.group is not None] for split, each in by_split.items()}
        groups = {split: each for split, each in groups.items() if each}
        return place_splits(found, [shown(name) for name in names], self.notes, origins, groups)

    def _once(self, rows: Sequence[_Row]) -> list[_Row]:
        """Raises UsageError for an image with two labels, or of two splits."""
        first: dict[Path, _Row] = {}
        for row in rows:
            other = first.setdefault(row.image, row)
            if (other.label, other.split) != (row.label, row.split):
                what = "labels" if other.label != row.label else "splits"
                raise UsageError(
                    f"{row.said}: {within(self.root, row.image)} has two {what}, "
                    f"{shown(other.label if what == 'labels' else other.split)} in {other.said} and "
                    f"{shown(row.label if what == 'labels' else row.split)} here; an image has one"
                )
        if len(first) < len(rows):
            self.notes.append(f"{counted(len(rows) - len(first), 'row')} repeated another and left out")
        return list(first.values())

    def _by_split(self, rows: Sequence[_Row]) -> Mapping[str, list[_Row]]:
        """By what rows say, else by the folders that the images lie in, where all rows agree to say something."""
        said = [row.split for row in rows]
        if not any(said):
            inside = [row.image.relative_to(self.root).parts[:-1] for row in rows]
            said = [split_of(parts[0]) if parts else None for parts in inside]
            said = said if all(said) else [None] * len(rows)
        elif not all(said):
            row = next(row for row in rows if row.split is None)
            raise UsageError(f"{row.said} says no split (train, val or test), while others do")
        found: dict[str, list[_Row]] = defaultdict(list)
        for row, split in zip(rows, said, strict=True):
            found[split or "train"].append(row)
        if set(found) == {"test"}:  # the folder's own name says nothing then
            return {"train": found["test"]}
        return {split: found[split] for split in SPLITS if split in found}

    def _say_left_out(self, used: set[Path]) -> None:
        below = walk(self.root)
        left = [path for path in below.images if path not in used]
        if left:
            folders = Counter(within(self.root, path.parent) for path in left)
            self.notes.append(
                f"{counted(len(left), 'image')} without a row left out, in {listing(folders, 3)} "
                f"(such as {within(self.root, left[0])})"
            )


def _tables_of_splits(folder: Path) -> dict[Path, str]:
    """Tables that are called as splits, and which."""
    return {path: split for path in listed(folder)[1] if is_sheet(path) and (split := split_of(path.stem))}


def in_order(names: set[str]) -> list[str]:
    """By number where all are whole numbers, else as text."""
    return sorted(names, key=int) if all(_is_number(name) for name in names) else sorted(names)


def _is_number(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit() and str(int(name)) == name
