"""Tables of texts that name image files (CSV, TSV, JSON lines), and which of their columns says what."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from tvt_ray.data.layout import is_image, listing, split_of
from tvt_ray.data.names import one_form
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line, shown

ENDINGS = (".csv", ".tsv", ".jsonl")
MOST_BYTES = 2**28  # of a table; those of public datasets have some megabytes
MOSTLY = 0.5  # share of a column's texts that name images, or of the images that it names

# What people call these columns, by their letters alone, in any case; the first that is there is taken.
LABELS = [
    "label",
    "labels",
    "class",
    "classname",
    "classid",
    "labelname",
    "category",
    "target",
    "y",
    "diagnosis",
    "dx",
    "species",
    "breed",
    "findinglabels",
    "finelabel",
]
SPLITS = [
    "split",
    "subset",
    "partition",
    "fold",
    "set",
    "usage",
    "phase",
    "istest",
    "istrain",
    "istraining",
    "isval",
    "isvalid",
    "isvalidation",
]


@dataclass(frozen=True)
class Sheet:
    """A table as it is written: by column a text of each row, None where there is none."""

    path: Path
    columns: Mapping[str, Sequence[str | None]]

    @property
    def num_rows(self) -> int:
        """Without the header."""
        return len(next(iter(self.columns.values())))

    def row(self, number: int) -> str:
        """What messages call a row; rows count from 0, as those of Parquet."""
        return f"{shown(self.path)}, row {number}"


def is_sheet(path: Path) -> bool:
    """By its ending, in any case."""
    return path.suffix.lower() in ENDINGS


def read_sheet(path: Path) -> Sheet:
    """Every value as text, so that 0012 stays a name. Raises UsageError for what is no such table, or has no rows."""
    if not is_sheet(path):
        raise UsageError(f"{shown(path)}: a table of labels is one of {', '.join(ENDINGS)}")
    try:
        if path.stat().st_size > MOST_BYTES or not path.is_file():
            raise UsageError(f"{shown(path)} is no table of labels: no file, or one of more than {MOST_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(path)} cannot be read: {error.strerror or first_line(error)}") from None
    try:
        table = _json_lines(data) if path.suffix.lower() == ".jsonl" else _separated(data, path.suffix.lower())
        columns = {name.strip(): list(map(_text, table[name].to_pylist())) for name in table.column_names}
    except (
        pa.ArrowException,
        KeyError,
        UnicodeDecodeError,
        ValueError,
    ) as error:  # KeyError: a name that is there twice
        raise UsageError(f"{shown(path)} cannot be read as a table in UTF-8: {first_line(error)}") from None
    if not columns or not table.num_rows:
        raise UsageError(f"{shown(path)} has no rows")
    return Sheet(path, columns)


def _text(value: Any) -> str | None:
    """Without blanks at its ends, as behind a comma; None where nothing is left."""
    return None if value is None else str(value).strip() or None


def _separated(data: bytes, ending: str) -> pa.Table:
    head = data.split(b"\n", 1)[0].decode("utf-8-sig")
    separator = "\t" if ending == ".tsv" else max(",;\t", key=head.count)
    parse = pacsv.ParseOptions(delimiter=separator, newlines_in_values=True)
    with pacsv.open_csv(pa.BufferReader(data), parse_options=parse) as reader:
        names = reader.schema.names
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    return pacsv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=convert)


def _json_lines(data: bytes) -> pa.Table:
    return pajson.read_json(pa.BufferReader(data))


class Files:
    """Image files below a folder, by how a table may name them: the path from there, the name, the name's stem."""

    def __init__(self, root: Path, paths: Iterable[Path]) -> None:
        self.root, self.paths = root, list(paths)

    @cached_property
    def _by_key(self) -> Mapping[str, Sequence[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            inside = path.relative_to(self.root)
            for key in dict.fromkeys((inside.as_posix(), str(inside.with_suffix("")), path.name, path.stem)):
                found[one_form(key)].append(path)
        return found

    def find(self, text: str | None) -> Sequence[Path]:
        """Those that a text names: by the whole of it, else by its last part; none, one, or several."""
        if not text:
            return ()
        whole = one_form(text.strip().replace("\\", "/").removeprefix("./"))
        last = whole.rpartition("/")[2]
        return self._by_key.get(whole) or self._by_key.get(last) or ()

    def share(self, texts: Sequence[str | None]) -> float:
        """Of the texts, those that name a file."""
        return sum(bool(self.find(text)) for text in texts) / len(texts)


def file_column(sheet: Sheet, files: Files, wanted: str | None = None) -> str:
    """The column that names the images: `wanted`, or the one of which most texts do.

    Raises UsageError where there is none, with what the table and the folder have.
    """
    if wanted is not None:
        return _existing(sheet, wanted, "data.image_column")
    shares = {name: files.share(texts) for name, texts in sheet.columns.items()}
    best = max(shares, key=shares.__getitem__)
    if any(files.find(name) and is_image(Path(name)) for name in sheet.columns):
        raise UsageError(f"{shown(sheet.path)} has no line with the columns' names before its rows, as in file,label")
    if not shares[best]:
        example = f" such as {shown(files.paths[0].relative_to(files.root))}" if files.paths else ": there are none"
        raise UsageError(
            f"{shown(sheet.path)}: no column of {listing(sheet.columns)} names images in {shown(files.root)}{example}; "
            "data.image_column names it, --dataset their folder"
        )
    return best


@dataclass(frozen=True)
class Labels:
    """What a table says of the classes."""

    columns: tuple[str, ...]  # that say it: one with the classes' names, or one for each class, called as it
    texts: Sequence[str | None]  # of each row
    notes: Sequence[str] = ()


def labels_of(sheet: Sheet, others: Sequence[str], wanted: str | None = None) -> Labels:
    """The classes of a table's rows: of the column `wanted`, of one by its usual name, or of the only one that repeats
    its values; else of columns of 0 and 1 that are named as classes, where each row has a single 1.

    `others`: columns that say none. `wanted`: a column, or A,B,C for such columns. Raises UsageError that lists the
    columns, and for rows of no class or of several.
    """
    if wanted is not None:
        names = (wanted,) if wanted in sheet.columns else tuple(map(str.strip, wanted.split(",")))
        columns = tuple(_existing(sheet, name, "data.label_column") for name in names)
        return Labels(columns, sheet.columns[wanted]) if len(columns) == 1 else _by_columns(sheet, columns)
    usual = [name for word in LABELS for name in sheet.columns if letters(name) == word and name not in others]
    free = [name for name in sheet.columns if name not in others and _repeats(sheet.columns[name])]
    found = usual or (free if len(free) == 1 else [])
    if found:
        note = f"the column {shown(found[0])} holds the labels; data.label_column chooses another: {listing(found[1:])}"
        return Labels((found[0],), sheet.columns[found[0]], [note] if found[1:] else [])
    columns = tuple(name for name in sheet.columns if name not in others and _is_truth(sheet.columns[name]))
    if len(columns) > 1:
        return _by_columns(sheet, columns)
    raise UsageError(
        f"{shown(sheet.path)}: which column has the classes? --set data.label_column=…, one of "
        f"{listing(name for name in sheet.columns if name not in others)}"
    )


def _by_columns(sheet: Sheet, columns: Sequence[str]) -> Labels:
    """Of columns called as classes, with 1 in that of the row's own."""
    texts: list[str | None] = []
    for number in range(sheet.num_rows):
        values = {name: _TRUTH.get((sheet.columns[name][number] or "").lower()) for name in columns}
        true = [name for name, value in values.items() if value]
        if len(true) != 1 or None in values.values():
            what = f"is of {len(true)} classes ({listing(true, 3)})" if true else "is of no class"
            odd = next((name for name, value in values.items() if value is None), None)
            if odd is not None:
                what = f"has {shown(sheet.columns[odd][number])!r} for {shown(odd)}, which is no 0 or 1"
            raise UsageError(
                f"{sheet.row(number)} {what}: an image has one class here; --set data.label_column names the column of "
                f"the classes, or those with a 1 for each class, as in {','.join(map(shown, columns[:2]))}"
            )
        texts.append(true[0])
    note = f"the columns {listing(columns)} are the classes, with a 1 for a row's own"
    return Labels(tuple(columns), texts, [note])


def _is_truth(texts: Sequence[str | None]) -> bool:
    return all(text is not None and text.lower() in _TRUTH for text in texts)


def split_column(names: Sequence[str]) -> str | None:
    """The column that says by its name that it tells rows of train from those of test."""
    return next((name for word in SPLITS for name in names if letters(name) == word), None)


def split_of_value(column: str, value: Any) -> str | None:
    """train, val or test: what a value of a split column says; None where it says none.

    Of columns as `is_test`, a truth value: what is not test is train.
    """
    word = letters(column).removeprefix("is")
    if letters(column) != word:
        truth = _TRUTH.get(str(value).strip().lower())
        said = split_of(word)
        return None if truth is None or said is None else said if truth else "test" if said == "train" else "train"
    return split_of(str(value).strip())


_TRUTH = {"1": True, "true": True, "yes": True, "1.0": True, "0": False, "false": False, "no": False, "0.0": False}


def letters(name: str) -> str:
    """A column's name by its letters, in lower case: Finding Labels is findinglabels."""
    return re.sub(r"[\W\d_]+", "", name).lower()


def _existing(sheet: Sheet, name: str, key: str) -> str:
    if name not in sheet.columns:
        raise UsageError(f"{shown(sheet.path)} has no column {name!r} ({key}); it has {listing(sheet.columns)}")
    return name


def _repeats(texts: Sequence[str | None]) -> bool:
    """Whether a column can be one of classes: at least two, each with two rows on average."""
    return 2 <= len(set(texts) - {None}) <= len(texts) / 2
