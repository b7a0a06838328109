"""Parquet files: which of them belong to which split, as Hugging Face lays them out and as people call them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tvt_ray.data.layout import (
    SHARD,
    SPLITS,
    WORDS,
    Found,
    counted,
    ignored_files,
    listing,
    split_of,
    walk,
    within,
    word_of,
)
from tvt_ray.data.parquet_rows import Table, choose_columns, class_labels, image_source, read_table
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
    columns = choose_columns([file for split in (ALL, *SPLITS) for file in files.get(split, ())], settings)
    read = {split: [read_table(file, columns) for file in paths] for split, paths in files.items()}
    named = {split: [within(path, file) for file in paths] for split, paths in files.items() if split != ALL}
    origins = {split: listing(places, 1) for split, places in named.items()}
    tables, more = _labelled(path, files, read)
    tables, origins = _by_column(columns.split or "", tables, origins)
    names, labels, unified = class_labels(columns, tables, settings.merge_names)
    found = {
        "train" if split == ALL else split: Split.whole(image_source(each, settings), labels[split])
        for split, each in tables.items()
    }
    origins = {split: origin for split, origin in origins.items() if split in found}
    notes += [*more, *unified]
    used = {image for each in tables.values() for table in each for image in table.images if isinstance(image, Path)}
    others = [file for file in beside.others if not is_parquet(file)] + [
        file for file in beside.images if file not in used
    ]
    groups = {
        "train" if split == ALL else split: [group for table in each for group in table.groups]
        for split, each in tables.items()
        if columns.group
    }
    notes = [*columns.notes, *notes, *ignored_files(others, path, "Parquet file")]
    return place_splits(found, names, notes, origins, groups)


def _labelled(
    root: Path, files: Mapping[str, Sequence[Path]], read: Mapping[str, Sequence[Table]]
) -> tuple[dict[str, list[Table]], list[str]]:
    """(tables with rows, by split; notes). Raises UsageError for an empty split, unless it is one without labels."""
    tables, notes = dict[str, list[Table]](), list[str]()
    for split, each in read.items():
        silent = [table for table in each if table.unlabelled]
        filled = [table for table in each if table.labels]
        if silent and (filled or split in (ALL, "train")):
            raise UsageError(f"{shown(silent[0].path)}, row 0: there is no label, nor in any other row")
        if silent:
            notes.append(f"{listing((within(root, table.path) for table in silent), 1)} left out: no row has a label")
        elif not filled:
            raise UsageError(f"{listing(files[split])}: no rows, so that the split {split} is empty")
        else:
            tables[split] = list(each) if split in (ALL, "train") else filled
    return tables, notes


def _by_column(
    column: str, tables: Mapping[str, Sequence[Table]], origins: Mapping[str, str]
) -> tuple[dict[str, list[Table]], dict[str, str]]:
    """(tables, origins) by what rows say, where files do not say more than that they are for training.

    Raises UsageError for a row that says another split than its file's name.
    """
    if not any(table.splits for each in tables.values() for table in each):
        return {split: list(each) for split, each in tables.items()}, dict(origins)
    if len(tables) > 1:
        for split, each in tables.items():
            for table in each:
                other = next((row for row, said in enumerate(table.splits or ()) if said != split), None)
                if other is not None:
                    assert table.splits is not None
                    raise UsageError(
                        f"{table.name(other)}: {column} says {table.splits[other]}, the file's name {split}"
                    )
        return {split: list(each) for split, each in tables.items()}, dict(origins)
    (read,) = tables.values()
    said = [table.splits or ["train"] * len(table.labels) for table in read]
    found = {
        split: [table.take(rows) for table, each in zip(read, said, strict=True) if (rows := _where(each, split))]
        for split in SPLITS
    }
    if not found["train"]:
        raise UsageError(f"{shown(read[0].path)}: {column} says train for no row")
    by_split = {split: each for split, each in found.items() if each}
    return by_split, {split: f"the column {shown(column)}" for split in by_split}


def _where(said: Sequence[str], split: str) -> list[int]:
    return [row for row, each in enumerate(said) if each == split]


class _Candidate(NamedTuple):
    """A file, and what its name and its folders' names say."""

    path: Path
    split: str | None
    word: str | None  # by which the split is called
    config: str  # the folders that say no split: a dataset of its own, as Hugging Face has them


def is_parquet(path: Path) -> bool:
    """By its ending, in any case."""
    return path.suffix.lower() in (".parquet", ".pq")


def holds_tables(folder: Path) -> bool:
    """Whether a folder's Parquet files hold a dataset: they are all there is, or have columns of images and labels.

    Raises UsageError where images in several folders beside them are a dataset as well.
    """
    found = walk(folder)
    files = [path for path in found.others if is_parquet(path)]
    if not files or not found.images:
        return bool(files)
    try:
        choose_columns(files[:1], DataSettings(name=f"parquet:{folder}"))
    except UsageError:
        return False
    folders = Counter(path.parent for path in found.images)
    several = [place for place, count in folders.items() if count > 1]  # a single folder has pictures of a description
    if len(several) > 1:
        raise UsageError(
            f"{shown(folder)} holds Parquet with images ({within(folder, files[0])}) and image files in "
            f"{counted(len(folders), 'folder')} ({within(folder, several[0])}, …); name what is meant, as in "
            f"parquet:{shown(files[0].parent)} or imagefolder:{shown(_first_below(folder, several[0]))}"
        )
    return True


def _first_below(root: Path, path: Path) -> Path:
    """The folder of `root` that a path lies in, as a dataset of its own; `root` where that is a split's."""
    first = path.relative_to(root).parts[:1]
    return root.joinpath(*first) if first and not split_of(first[0]) else root


def _find_files(root: Path, paths: Sequence[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """(files by split, notes). Raises UsageError for several datasets, or several versions of one split."""
    files = [_candidate(root, path) for path in paths if is_parquet(path)]
    if not files:
        raise UsageError(f"{shown(root)} holds no .parquet file")
    used = [file for file in files if file.split] or files
    _check_configs(root, used)
    left = [file.path for file in files if file not in used]
    what = f"{counted(len(left), 'Parquet file')} whose name says no split left out"
    notes = [f"{what} (such as {within(root, left[0])})"] if left else []
    if used[0].split is None:
        return {ALL: [file.path for file in used]}, [
            *notes,
            *_missing_shards(root, {"the folder": [f.path for f in used]}),
        ]
    by_split = {split: [file for file in used if file.split == split] for split in SPLITS}
    by_split = {split: same for split, same in by_split.items() if same}
    for split, same in by_split.items():
        _check_family(root, split, same)
    notes += _missing_shards(root, {split: [file.path for file in same] for split, same in by_split.items()})
    if "train" not in by_split:
        have = listing(within(root, file.path) for file in used)
        raise UsageError(f"{shown(root)} holds {have} but none to train on, called {' or '.join(WORDS['train'])}")
    return {split: [file.path for file in same] for split, same in by_split.items()}, notes


def _candidate(root: Path, path: Path) -> _Candidate:
    names = [*path.relative_to(root).parts[:-1], path.stem]
    said = {split_of(name): word_of(name) for name in names if split_of(name)}
    if len(said) > 1:
        raise UsageError(f"{shown(path)}: the names say two splits, {listing(said)}; rename the file or its folder")
    config = "/".join(name for name in names[:-1] if not split_of(name) and name != "data" and "=" not in name)
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
    families = {(_unparted(file.path.parent), file.word): file.path for file in same}
    if len(families) > 1:
        examples = listing(within(root, path) for path in families.values())
        raise UsageError(
            f"{shown(root)} holds {len(families)} sets of files for the split {split}: {examples}; keep one"
        )
    shards = [(match[0].lower(), file.path) for file in same if (match := SHARD.search(file.path.stem))]
    twice = next(((path, other) for (a, path), (b, other) in itertools.combinations(shards, 2) if a == b), None)
    if twice and twice[0].parent == twice[1].parent:
        raise UsageError(
            f"{shown(root)} holds one shard twice: {listing(within(root, path) for path in twice)}; keep one"
        )


def _unparted(folder: Path) -> Path:
    """Without the folders that say something of rows, as label=cat."""
    return Path(*(name for name in folder.parts if "=" not in name))


def _missing_shards(root: Path, files: Mapping[str, Sequence[Path]]) -> list[str]:
    """A note for each split of whose files the names say that there are more."""
    notes = []
    for split, paths in files.items():
        shards = [(path, match) for path in paths if (match := SHARD.search(path.stem))]
        wanted = max((int(match[2]) for _, match in shards), default=0)
        if len(shards) < wanted:
            example = within(root, shards[0][0])
            notes.append(f"{split} has {len(shards)} of {wanted} files, as {example} is called: others are not here")
    return notes
