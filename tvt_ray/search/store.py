"""Rows on disk: Parquet parts, each written whole or not at all, so that a killed run leaves good ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tvt_ray.errors import UsageError
from tvt_ray.search.rows import Row
from tvt_ray.storage import write_atomically

SCHEMA = pa.schema(
    [
        ("arch_id", pa.string()),
        ("space", pa.string()),
        ("arch", pa.string()),  # JSON
        ("score", pa.float64()),
        ("params", pa.int64()),
        ("flops", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("seed", pa.int64()),
        ("seconds", pa.float64()),
    ]
)  # and one float64 column for each component


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """SCHEMA, then components by name; a component that a row lacks is null."""
    names = sorted({name for row in rows for name in row.components})
    schema = pa.schema([*SCHEMA, *[(name, pa.float64()) for name in names]])
    records = [
        {**{name: getattr(row, name) for name in SCHEMA.names}, "arch": json.dumps(row.arch), **row.components}
        for row in rows
    ]
    return pa.Table.from_pylist(records, schema)


def table_to_rows(table: pa.Table) -> list[Row]:
    rows = []
    for record in table.to_pylist():
        fields = {name: record.pop(name) for name in SCHEMA.names}
        fields["arch"] = json.loads(fields["arch"])
        rows.append(Row(**fields, components={k: v for k, v in record.items() if v is not None}))
    return rows


class RowStore:
    """The rows/ folder of a run. One driver writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        numbers = [int(path.stem.removeprefix("part-")) for path in self._parts()]
        self._next = max(numbers, default=-1) + 1

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def append(self, rows: Sequence[Row]) -> None:
        """Writes a new part; on return the rows are on disk."""
        if rows:
            self._write(rows)

    def _write(self, rows: Sequence[Row]) -> Path:
        sink = pa.BufferOutputStream()
        pq.write_table(rows_to_table(rows), sink)
        path = self.folder / f"part-{self._next:06}.parquet"
        write_atomically(path, sink.getvalue().to_pybytes())
        self._next += 1
        return path

    def read(self) -> list[Row]:
        """All rows, in the order in which they were written, each architecture once.

        Raises UsageError that names a part that cannot be read.
        """
        return list(_first_of_each(row for path in self._parts() for row in _read_part(path)))

    def compact(self) -> None:
        """Rewrites all parts as one. Killed in between, both stand side by side and reading drops the repeats."""
        parts = self._parts()
        if len(parts) > 1:
            self._write(self.read())
            for path in parts:
                path.unlink()


def _read_part(path: Path) -> list[Row]:
    try:
        return table_to_rows(pq.read_table(path))
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} cannot be read ({reason}); move it away and --resume scores its rows again") from None


def _first_of_each(rows: Iterable[Row]) -> Iterable[Row]:
    seen: set[str] = set()
    for row in rows:
        if row.arch_id not in seen:
            seen.add(row.arch_id)
            yield row
