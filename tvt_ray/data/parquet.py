"""Parquet files: which of them belong to which split, as Hugging Face lays them out and as people call them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tvt_ray.data.layout import SPLITS, WORDS, Found, counted, ignored_files, listing, split_of, walk, within, word_of
from tvt_ray.data.parquet_rows import choose_columns, class_labels, image_source, read_table
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Loaded, Split, place_splits
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import shown

ALL = "all"  # what does not come split


def parquet_dataset(settings: DataSettings, path: Path) -> Loaded:
    """A Parquet file, which is split here, or a folder of them.

    The split is said by a file's name or by that of a folder above it: train-00000-of-00002.parquet,
    data/test.parquet, default/train/0000.parquet. With train and val but no test, val is the test split, as for image
    folders. Where no name says a split, all files are one, which is split here.
    """
    beside = Found() if path.is_file() else walk(path)
    files, notes = ({ALL: [path]}, list[str]()) if path.is_file() else _find_files(path, beside.others)
    first = files.get("train", files.get(ALL, []))[0]
    columns = choose_columns(first, settings)
    tables = {split: [read_table(file, columns) for file in paths] for split, paths in files.items()}
    for split, read in tables.items():
        if not any(table.labels for table in read):
            raise UsageError(f"{listing(files[split])}: no rows, so that the split {split} is empty")
    names, labels = class_labels(columns, tables)
    found = {
        "train" if split == ALL else split: Split.whole(image_source(read, settings), labels[split])
        for split, read in tables.items()
    }
    named = {split: [within(path, file) for file in paths] for split, paths in files.items() if split != ALL}
    origins = {split: listing(places, 1) for split, places in named.items()}
    used = {image for read in tables.values() for table in read for image in table.images if isinstance(image, Path)}
    others = [file for file in beside.others if not _is_parquet(file)] + [
        file for file in beside.images if file not in used
    ]
    return place_splits(found, names, (*columns.notes, *notes, *ignored_files(others, path, "Parquet file")), origins)


class _Candidate(NamedTuple):
    """A file, and what its name and its folders' names say."""

    path: Path
    split: str | None
    word: str | None  # by which the split is called
    config: str  # the folders that say no split: a dataset of its own, as Hugging Face has them


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _find_files(root: Path, paths: Sequence[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """(files by split, notes). Raises UsageError for several datasets, or several versions of one split."""
    files = [_candidate(root, path) for path in paths if _is_parquet(path)]
    if not files:
        raise UsageError(f"{shown(root)} holds no .parquet file")
    used = [file for file in files if file.split] or files
    _check_configs(root, used)
    left = [file.path for file in files if file not in used]
    what = f"{counted(len(left), 'Parquet file')} whose name says no split left out"
    notes = [f"{what} (such as {within(root, left[0])})"] if left else []
    if used[0].split is None:
        return {ALL: [file.path for file in used]}, notes
    by_split = {split: [file for file in used if file.split == split] for split in SPLITS}
    by_split = {split: same for split, same in by_split.items() if same}
    for split, same in by_split.items():
        _check_family(root, split, same)
    if "train" not in by_split:
        have = listing(within(root, file.path) for file in used)
        raise UsageError(f"{shown(root)} holds {have} but none to train on, called {' or '.join(WORDS['train'])}")
    return {split: [file.path for file in same] for split, same in by_split.items()}, notes


def _candidate(root: Path, path: Path) -> _Candidate:
    names = [*path.relative_to(root).parts[:-1], path.stem]
    said = {split_of(name): word_of(name) for name in names if split_of(name)}
    if len(said) > 1:
        raise UsageError(f"{shown(path)}: the names say two splits, {listing(said)}; rename the file or its folder")
    config = "/".join(name for name in names[:-1] if not split_of(name) and name != "data")
    split, word = next(iter(said.items()), (None, None))
    return _Candidate(path, split, word, config)


def _check_configs(root: Path, used: Sequence[_Candidate]) -> None:
    configs = sorted({file.config for file in used})
    if len(configs) > 1:
        names = listing(config or "the folder itself" for config in configs)
        raise UsageError(
            f"{shown(root)} holds {len(configs)} datasets: {names}; name one, as in parquet:{shown(root / configs[-1])}"
        )


def _check_family(root: Path, split: str, same: Sequence[_Candidate]) -> None:
    """A split's files lie in one folder and call it by one word; else some are most likely another copy of it."""
    families = {(file.path.parent, file.word): file.path for file in same}
    if len(families) > 1:
        examples = listing(within(root, path) for path in families.values())
        raise UsageError(
            f"{shown(root)} holds {len(families)} sets of files for the split {split}: {examples}; keep one"
        )
