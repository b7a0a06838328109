"""Signs that the folders of a dataset are no classes: parts of one set, sites, folds, masks beside images."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tvt_ray.data.layout import listed, listing, pasted, split_of
from tvt_ray.data.pixels import opened
from tvt_ray.data.sheets import MOSTLY, Files, Sheet, file_column, is_sheet, labels_of, letters, read_sheet
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import shown

SETTING = "data.classes"
LEAST_SHARED = 2  # names of inner folders that two folders have in common, and
SHARED = 0.5  # of those that the one with fewer has: the folders then hold the same classes
MOST_WITH_MASKS = 4  # folders, of which one may hold the images and the others their masks
NUM_HEADERS = 8  # images of a folder whose headers are read
_MASKS = re.compile(
    r"mask|segmentation|annotation|groundtruth|seg$|gt$"
)  # what folders of masks are called, by letters
_ANYWAY = f"--set {SETTING}=outer reads the folders as the classes"


def check_are_classes(root: Path, images: Mapping[str, Sequence[Path]], tables: Sequence[Path]) -> None:
    """Raises UsageError, with what to do, where folders in `root` are most likely no classes.

    `images`: by folder; `tables`: files that may say the classes. The signs: a table that names the images and gives
    them other classes; folders that hold folders of the same names; images beside masks of the same names.
    """
    if len(images) < 2:
        return
    files = Files(root, [path for paths in images.values() for path in paths])
    sheet = sheet_of(files, tables)
    if sheet and not _says_folders(sheet, files, images):
        raise UsageError(
            f"{shown(root)}: are {listing(images, 4)} classes? {shown(sheet.path)} names their images: "
            f"--labels {pasted(sheet.path)} reads the classes from it; {_ANYWAY}"
        )
    if shared := _shared_inside(root, images):
        raise UsageError(
            f"{shown(root)}: {listing(images, 4)} hold folders of the same names ({listing(shared, 4)}), as parts of "
            f"one dataset do: --set {SETTING}=inner reads those as the classes; {_ANYWAY}; folders called train, val "
            "and test are splits; a path to one of them reads it alone"
        )
    if pair := _masks(images):
        raise UsageError(
            f"{shown(root)}: the images in {shown(pair[1])} look like masks of those in {shown(pair[0])}, of the same "
            f"names: put them elsewhere; {_ANYWAY}"
        )


def sheet_of(files: Files, tables: Sequence[Path]) -> Sheet | None:
    """Of tables with labels that name most of the images, or most of whose rows name one, that of the most images."""
    named = dict[int, Sheet]()
    for path in filter(is_sheet, tables):
        with contextlib.suppress(UsageError):  # whatever else a table is, it says no classes
            sheet = read_sheet(path)
            names = file_column(sheet, files)
            labels_of(sheet, [names])
            found = [each[0] for each in map(files.find, sheet.columns[names]) if each]
            if len(found) >= MOSTLY * sheet.num_rows or len(set(found)) >= MOSTLY * len(files.paths):
                named.setdefault(len(set(found)), sheet)
    return named[max(named)] if named else None


def _says_folders(sheet: Sheet, files: Files, images: Mapping[str, Sequence[Path]]) -> bool:
    """Whether a column of the table says what the folders say, a value for each folder: both agree then."""
    folder_of = {path: name for name, paths in images.items() for path in paths}
    named = [files.find(text) for text in sheet.columns[file_column(sheet, files)]]
    for texts in sheet.columns.values():
        pairs = {(text, folder_of[each[0]]) for text, each in zip(texts, named, strict=True) if each}
        if len(pairs) == len({text for text, _ in pairs}) == len({folder for _, folder in pairs}) == len(images):
            return True
    return False


def _shared_inside(root: Path, images: Mapping[str, Sequence[Path]]) -> list[str]:
    """Names of the folders with images inside of these, where each two have most in common; none elsewhere."""
    inner = {
        name: {path.relative_to(root / name).parts[0] for path in paths if len(path.relative_to(root / name).parts) > 1}
        for name, paths in images.items()
    }
    if not all(inner.values()):
        return []
    for first, second in itertools.combinations(inner.values(), 2):
        shared = first & second
        if len(shared) < LEAST_SHARED or len(shared) < SHARED * min(len(first), len(second)):
            return []
    return sorted(set.union(*inner.values()))


def _masks(images: Mapping[str, Sequence[Path]]) -> tuple[str, str] | None:
    """(the folder of the images, that of their masks): the same stems in both, masks by their name or their pixels."""
    if len(images) > MOST_WITH_MASKS:
        return None
    stems = {name: {path.stem for path in paths} for name, paths in images.items()}
    for first, second in itertools.permutations(images, 2):
        if not stems[second] or not stems[second] <= _stems_of_masks(stems[first]):
            continue
        if _MASKS.search(letters(second)) and not _MASKS.search(letters(first)):
            return first, second
        if _is_grey(images[second]) and not _is_grey(images[first]) and _sizes(images[first]) == _sizes(images[second]):
            return first, second
    return None


def _stems_of_masks(stems: set[str]) -> set[str]:
    """What masks of images so called may be called."""
    return stems | {f"{stem}{end}" for stem in stems for end in ("_mask", "_seg", "_segmentation", "_gt", "_label")}


def _headers(paths: Sequence[Path]) -> list[tuple[str, tuple[int, int]]]:
    """(mode, size) of the first images by name that can be opened."""
    found = []
    for path in sorted(paths, key=lambda path: path.stem)[:NUM_HEADERS]:
        with contextlib.suppress(UsageError), opened(path, shown(path)) as image:  # said later, by who reads all
            found.append((image.mode, image.size))
    return found


def _is_grey(paths: Sequence[Path]) -> bool:
    headers = _headers(paths)
    return bool(headers) and all(mode in ("1", "L", "P") for mode, _ in headers)


def _sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    return [size for _, size in _headers(paths)]


def where_classes_are(path: Path) -> str:
    """For a message: the first folder below that holds several, or one that is a split; nothing where none does."""
    below = path
    while len(folders := listed(below)[0]) == 1 and (below == path or not split_of(folders[0].name)):
        below = folders[0]
    if below != path and folders:
        return f"; is the dataset {shown(below)}, with {listing(folder.name for folder in folders)}?"
    return ""
