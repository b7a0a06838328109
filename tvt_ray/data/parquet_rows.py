"""What Parquet files hold: which columns have images and labels, their rows, and which class a label means."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tvt_ray.data.images import EncodedImages
from tvt_ray.data.layout import listing
from tvt_ray.data.names import one_form, unify
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.sheets import LABELS, letters, split_column, split_of_value
from tvt_ray.data.tensors import encoded, encoder
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line, shown, within_folder

Labels: TypeAlias = Sequence[int] | Sequence[str]  # of a file's rows


class _Kind(NamedTuple):
    """How a column is found where the settings do not say."""

    what: str  # as in data.label_column
    usual: Sequence[str]  # names by their letters, the first of which that is there is taken
    feature: str  # its type in Hugging Face's metadata


IMAGE = _Kind("image", ("image", "img", "imagebytes", "content"), "Image")
LABEL = _Kind("label", LABELS, "ClassLabel")


@dataclass(frozen=True)
class Columns:
    """Chosen once, by the first training file, and the same in all files."""

    image: str
    label: str
    class_names: tuple[str, ...] | None  # of that very column, of the first file whose metadata has them
    notes: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()  # folders in which images may be named by path
    split: str | None = None  # tells rows of train from those of test
    group: str | None = None  # tells which rows belong together


def choose_columns(paths: Sequence[Path], settings: DataSettings) -> Columns:
    """As the settings say, else by name, else the only column that Hugging Face's metadata calls an image or a label.

    `paths`: those of train first. Raises UsageError that lists the columns of the first where there is none.
    """
    schemas = {path: schema_of(path) for path in paths}
    schema = schemas[paths[0]]
    label, label_notes = _choose(paths[0], schema, LABEL, settings.label_column)
    image, image_notes = _choose(paths[0], schema, IMAGE, settings.image_column)
    named = Path(settings.name.partition(":")[2])
    own = named if named.is_dir() else named.parent
    roots = (own, own.resolve(), *([settings.image_root] if settings.image_root else ()))
    names = next((found for path in paths if (found := stated_names(path, schemas[path], label))), None)
    split = split_column([name for name in schema.names if name not in (image, label)])
    group = settings.group_by if settings.group_by in schema.names else None
    return Columns(image, label, names, (*label_notes, *image_notes), roots, split, group)


def schema_of(path: Path) -> pa.Schema:
    """Of a file's columns and of those that its folders say, as label=cat. Raises UsageError."""
    with reading(path):
        schema = pq.read_schema(path)
    for name in partition(path):
        schema = schema if name in schema.names else schema.append(pa.field(name, pa.string()))
    return schema


def partition(path: Path) -> dict[str, str]:
    """What the folders of a file say of its rows, as Hive, Spark and Ray Data write them: label=cat/part-0.parquet."""
    said = (name.partition("=") for name in path.parts[:-1])
    return {key: unquote(value) for key, equals, value in said if key and equals and value != _HIVE_NULL}


_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def _choose(path: Path, schema: pa.Schema, kind: _Kind, wanted: str | None) -> tuple[str, list[str]]:
    """(the column, what is to be said of others that it could have been)."""
    key = f"data.{kind.what}_column"
    if wanted is not None:
        if wanted not in schema.names:
            raise UsageError(f"{shown(path)} has no column {wanted!r} ({key}); it has {listing(schema.names)}")
        return wanted, []
    features = _features(path, schema)
    usual = [name for word in kind.usual for name in schema.names if letters(name) == word]
    marked = [name for name in schema.names if _feature(features, name).get("_type") == kind.feature]
    if not usual and len(marked) != 1:
        names = " or ".join(kind.usual[:2])
        got = listing(schema.names)
        raise UsageError(f"{shown(path)}: a column named {names} is needed; got {got}; {key} names another")
    chosen = (usual or marked)[0]
    others = [name for name in dict.fromkeys(usual + marked) if name != chosen]
    note = f"the column {chosen} holds the {kind.what}s; {key} chooses another: {listing(others)}"
    return chosen, [note] if others else []


def stated_names(path: Path, schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """What a file's metadata calls the classes of the label column; None where it does not.

    Either Hugging Face's features of that column, or `class_names`: JSON, or with commas between. Raises UsageError.
    """
    names = _feature(_features(path, schema), label).get("names")
    if names is None and b"class_names" in (schema.metadata or {}):
        text = schema.metadata[b"class_names"].decode("utf-8", "backslashreplace")
        is_json = text.lstrip().startswith("[")
        names = _metadata(path, schema, b"class_names") if is_json else [name.strip() for name in text.split(",")]
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise UsageError(f"{shown(path)}: class names in the metadata are a list of texts; got {str(names)[:60]}")
    return tuple(shown(name) for name in names)


def _features(path: Path, schema: pa.Schema) -> Mapping[str, Any]:
    """What Hugging Face's metadata says of each column; nothing where there is none."""
    found = _metadata(path, schema, b"huggingface")
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _feature(features: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    feature = features.get(column)
    return feature if isinstance(feature, dict) else {}


def _metadata(path: Path, schema: pa.Schema, key: bytes) -> Any:
    try:
        return json.loads((schema.metadata or {}).get(key, "{}"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise UsageError(f"{shown(path)}: the metadata {key.decode()!r} is no JSON: {first_line(error)}") from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What pyarrow cannot read in the block, names of columns too, is a UsageError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown(path)} cannot be read as Parquet: {first_line(error)}") from None


@dataclass(frozen=True)
class Table:
    """What is used of a file: a row's image is its bytes, or a file."""

    path: Path
    images: Sequence[bytes | Path]
    labels: Labels
    splits: Sequence[str] | None = None  # what the rows say they are of; None: nothing
    numbers: Sequence[int] | None = None  # of the rows, where they are some of the file's
    groups: Sequence[str] = ()  # of the rows; empty: no column says them
    unlabelled: bool = False  # all rows are, and left out: a challenge's test images

    def name(self, row: int) -> str:
        """What messages call a row."""
        return f"{shown(self.path)}, row {row if self.numbers is None else self.numbers[row]}"

    def take(self, rows: Sequence[int]) -> Table:
        """Some of the rows."""
        chosen: Any = [self.labels[row] for row in rows]
        groups = [self.groups[row] for row in rows] if self.groups else ()
        return Table(self.path, [self.images[row] for row in rows], chosen, None, rows, groups)


def read_table(path: Path, columns: Columns) -> Table:
    """One file's images and labels.

    Raises UsageError for a file that is none, lacks a column or names the classes otherwise, and for a row without an
    image or a label, naming it.
    """
    _check_schema(path, schema_of(path), columns)
    wanted = list(dict.fromkeys([columns.image, columns.label, *filter(None, [columns.split, columns.group])]))
    with reading(path), pq.ParquetFile(path) as file:
        table = file.read([name for name in wanted if name in file.schema_arrow.names])
    if not table.num_rows:
        return Table(path, [], [])
    for name in wanted:
        if name not in table.column_names and name in partition(path):
            table = table.append_column(name, pa.array([partition(path)[name]] * len(table)))
    if _says_nothing(table.column(columns.label)):
        return Table(path, [], [], unlabelled=True)
    labels = _read_labels(table.column(columns.label), path, columns.class_names is not None)
    images = _read_images(table.column(columns.image), table.field(columns.image), path, columns.roots)
    groups = (
        [] if columns.group is None else [_text(value) for value in _plain(table.column(columns.group)).to_pylist()]
    )
    return Table(path, images, labels, _read_splits(table, path, columns.split), groups=groups)


def _read_splits(table: pa.Table, path: Path, column: str | None) -> list[str] | None:
    """None where the column is not there or says nothing. Raises UsageError for a row that alone says nothing."""
    if column is None or column not in table.column_names:
        return None
    values = _plain(table.column(column)).to_pylist()
    said = [None if value is None else split_of_value(column, _text(value)) for value in values]
    if not any(said):
        return None
    silent = next((row for row, split in enumerate(said) if split is None), None)
    if silent is not None:
        raise UsageError(
            f"{shown(path)}, row {silent}: {column} {shown(values[silent])} says neither train, val nor test, which "
            "other rows say"
        )
    return [split for split in said if split]


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _check_schema(path: Path, schema: pa.Schema, columns: Columns) -> None:
    for name in (columns.image, columns.label):
        if schema.names.count(name) != 1:
            what = "more than one column" if name in schema.names else "no column"
            raise UsageError(f"{shown(path)} has {what} {name!r}; it has {listing(schema.names)}")
    own = stated_names(path, schema, columns.label)
    if own is not None and columns.class_names is not None and own != columns.class_names:
        raise UsageError(
            f"{shown(path)} names the classes {listing(own)}; the first file has {listing(columns.class_names)}"
        )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionary encoding."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _read_images(column: pa.ChunkedArray, field: pa.Field, path: Path, roots: Sequence[Path]) -> list[bytes | Path]:
    column = _plain(column)
    if encode := encoder(field):
        return [_as_file(path, row, value, encode) for row, value in enumerate(column.to_pylist())]
    contents, places = _image_fields(column)
    if contents is None and places is None and column.null_count < len(column):
        raise UsageError(
            f"{shown(path)}: images are encoded bytes, a file's path as text, a struct with a field `bytes` or `path`, "
            f"or pixels as lists or tensors; got {column.type}"
        )
    rows = [field.to_pylist() if field is not None else [None] * len(column) for field in (contents, places)]
    missing = next((row for row, pair in enumerate(zip(*rows, strict=True)) if not any(pair)), None)
    if missing is not None:
        raise UsageError(f"{shown(path)}, row {missing}: there is no image")
    return [
        _as_file(path, row, content, encoded) if content else _placed(path, row, place, roots)
        for row, (content, place) in enumerate(zip(*rows, strict=True))
    ]


def _as_file(path: Path, row: int, value: Any, encode: Callable[[Any], bytes]) -> bytes:
    if value is None:
        raise UsageError(f"{shown(path)}, row {row}: there is no image")
    try:
        return encode(value)
    except (ValueError, TypeError, KeyError, EOFError) as error:
        raise UsageError(f"{shown(path)}, row {row}: no image: {first_line(error)}") from None


def _placed(file: Path, row: int, place: str, roots: Sequence[Path]) -> Path:
    """A file's text may lead anywhere: into folders of the user that it is not for, and over the network."""
    if place.startswith(_BASE64) or len(place) > _LONGEST_PATH:
        raise UsageError(
            f"{shown(file)}, row {row}: {shown(place[:20])}… is no path; where it is base64, decode it first: "
            "table.set_column(i, 'image', [[base64.b64decode(t) for t in table['image'].to_pylist()]])"
        )
    if "://" in place:
        raise UsageError(
            f"{shown(file)}, row {row} names {shown(place[:80])}: images are read from a disk; fetch them into a "
            "folder first"
        )
    place = place.replace("\\", "/") if "\\" in place and not (file.parent / place).exists() else place  # of Windows
    found = file.parent / place
    if not any(within_folder(root, found) for root in roots):
        raise UsageError(
            f"{shown(file)}, row {row} names {shown(place)}, which is outside of the dataset's folder; where that is "
            f"meant: --set data.image_root={shown(found.parent)}"
        )
    return found


_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "data:image/")  # how JPEG, PNG, GIF, WebP and data URLs begin
_LONGEST_PATH = 4096  # characters: Linux' own


def _image_fields(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, pa.ChunkedArray | None]:
    """(encoded bytes, paths), whichever there are."""
    if pa.types.is_struct(column.type):
        fields = {column.type.field(i).name for i in range(column.type.num_fields)}
        bytes_field, path_field = (
            pc.struct_field(column, name) if name in fields else None for name in ("bytes", "path")
        )
        return bytes_field, path_field
    return (column if _is_bytes(column.type) else None), (column if _is_text(column.type) else None)


def _read_labels(column: pa.ChunkedArray, path: Path, named: bool) -> Labels:
    """Whole numbers or texts. Truth values are numbers where they have names (`named`), else False and True."""
    column = _plain(column)
    unlabelled = pc.index(pc.is_null(column), True).as_py()
    if unlabelled >= 0:
        raise UsageError(f"{shown(path)}, row {unlabelled}: there is no label")
    kind = column.type
    if pa.types.is_boolean(kind) and not named:
        return [str(value) for value in column.to_pylist()]
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return [int(value) for value in column.to_pylist()]
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _whole_numbers(column.to_pylist(), path)
    if _is_text(kind):
        return [shown(value) for value in column.to_pylist()]
    if _is_bytes(kind):
        return [shown(value.decode("utf-8", "surrogateescape")) for value in column.to_pylist()]
    raise UsageError(f"{shown(path)}: labels are whole numbers, texts, bytes or truth values; got {kind}")


def _says_nothing(labels: pa.ChunkedArray) -> bool:
    """Whether no row has a label, or all have -1, as public datasets' test splits."""
    if labels.null_count == len(labels):
        return True
    return pa.types.is_integer(labels.type) and set(pc.unique(labels).to_pylist()) == {-1}


def _whole_numbers(values: Sequence[Any], path: Path) -> list[int]:
    for row, value in enumerate(values):
        if not np.isfinite(float(value)) or value != int(value):
            raise UsageError(f"{shown(path)}, row {row}: a label is a whole number or a text; got {value}")
    return [int(value) for value in values]


def class_labels(
    columns: Columns, tables: Mapping[str, Sequence[Table]], merge: bool | None = None
) -> tuple[list[str], dict[str, NDArray[np.int64]], list[str]]:
    """(class names, class numbers of each split's rows, notes). `tables`: by split, the training split first.

    With names in the metadata a number is a place among them, and a text one of them. Without, the classes are the
    training split's different labels in their order, whatever numbers lie between. Texts that `unify` takes for one
    name are one class; `merge` as there. Raises UsageError for a label that is none of these, naming file and row.
    """
    names = columns.class_names
    tables, notes = _unified(columns, tables, merge)
    first = next(iter(tables.values()))
    values = list(map(one_form, names)) if names is not None else _distinct(first)
    by_value = {value: number for number, value in enumerate(values)}
    by_place = {number: number for number in range(len(values))}

    def numbers(table: Table) -> list[int]:
        index: Mapping[Any, int] = by_place if names and _holds_numbers(table) else by_value
        unknown = next((row for row, label in enumerate(table.labels) if label not in index), None)
        if unknown is not None:
            known = f"0 to {len(values) - 1}" if index is by_place else listing(map(str, values))
            where = "in the metadata" if names else "in the training files"
            raise UsageError(
                f"{table.name(unknown)}: label {table.labels[unknown]!r} is none of the classes {where}: {known}"
            )
        return [index[label] for label in table.labels]

    found = {split: [number for table in read for number in numbers(table)] for split, read in tables.items()}
    return [str(value) for value in values], {split: np.array(each, np.int64) for split, each in found.items()}, notes


def _unified(
    columns: Columns, tables: Mapping[str, Sequence[Table]], merge: bool | None
) -> tuple[Mapping[str, Sequence[Table]], list[str]]:
    """(the tables with each text as the name of its class, notes)."""
    texts = {split: [label for table in read for label in _texts(table)] for split, read in tables.items()}
    if not any(texts.values()):
        return tables, []
    said = {"metadata": columns.class_names, **texts} if columns.class_names else texts
    classes, notes = unify(said, merge, shown(next(iter(tables.values()))[0].path))

    def renamed(split: str, table: Table) -> Table:
        if _holds_numbers(table):
            return table
        return dataclasses.replace(table, labels=[classes[split][text] for text in _texts(table)])

    return {split: [renamed(split, table) for table in read] for split, read in tables.items()}, notes


def _texts(table: Table) -> Sequence[str]:
    return [] if _holds_numbers(table) else [str(label) for label in table.labels]


def _holds_numbers(table: Table) -> bool:
    return bool(table.labels) and isinstance(table.labels[0], int)


def _distinct(tables: Sequence[Table]) -> list[Any]:
    filled = [table for table in tables if table.labels]
    numbers, texts = ([table for table in filled if _holds_numbers(table) == kind] for kind in (True, False))
    if numbers and texts:
        raise UsageError(
            f"labels are whole numbers in {shown(numbers[0].path)} and texts in {shown(texts[0].path)}; make them one"
        )
    return sorted({label for table in filled for label in table.labels})


def image_source(tables: Sequence[Table], settings: DataSettings) -> EncodedImages:
    """All images of a split. Where some are bytes and some files, the files are read."""
    images = [image for table in tables for image in table.images]
    if all(isinstance(image, Path) for image in images):
        return EncodedImages([image for image in images if isinstance(image, Path)], decoding=settings.decoding)
    names = [table.name(row) for table in tables for row in range(len(table.labels))]
    encoded = [_content(image, name) for image, name in zip(images, names, strict=True)]
    return EncodedImages(encoded, names, settings.decoding)


def _content(image: bytes | Path, name: str) -> bytes:
    try:
        return image.read_bytes() if isinstance(image, Path) else image
    except OSError as error:
        raise UsageError(f"{name}: the image {shown(image)} cannot be read: {first_line(error)}") from None
