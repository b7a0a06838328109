"""Rows on disk: Parquet parts, each written whole or not at all, so that a killed run leaves good ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from tvt_ray.errors import UsageError
from tvt_ray.search.rows import Row
from tvt_ray.storage import Location, write_atomically

PARTS_BEFORE_MERGING = 64  # small parts that a run gathers before they become one
ROWS_NOT_TO_MERGE = (
    8192  # a part with as many is left alone until the run ends: each row is rewritten a few times at most
)

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

    def __init__(self, folder: Location) -> None:
        self.folder, self._next = folder, 0
        self._pass_over(self._parts())

    def _parts(self) -> list[Location]:
        return sorted(self.folder.glob("part-*.parquet"), key=lambda path: path.name)

    def _pass_over(self, parts: Sequence[Location]) -> None:
        """Parts on disk are never written over, whoever wrote them."""
        numbers = [int(path.stem.removeprefix("part-")) for path in parts]
        self._next = max([self._next, *(number + 1 for number in numbers)])

    def holds_rows(self) -> bool:
        return bool(self._parts())

    def append(self, rows: Sequence[Row]) -> None:
        """Writes a new part; on return the rows are on disk. Raises RunError when they cannot be written."""
        if rows:
            self._write(rows_to_table(rows))

    def _write(self, table: pa.Table) -> Location:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        path = self.folder / f"part-{self._next:06}.parquet"
        write_atomically(path, sink.getvalue().to_pybytes())
        self._next += 1
        return path

    def read(self) -> list[Row]:
        """All rows, in the order in which they were written, each architecture once.

        Raises UsageError that names a part that cannot be read.
        """
        while True:
            try:
                return list(_first_of_each(row for path in self._parts() for row in table_to_rows(_read_part(path))))
            except FileNotFoundError:  # a driver at work has merged its parts since they were listed
                continue

    def compact(self, smaller_than: int | None = None) -> None:
        """Rewrites all parts (or those at the end with fewer rows each) as one.

        Killed in between, old and new stand side by side, and reading drops the repeats.
        """
        tables, paths, parts = list[pa.Table](), list[Location](), self._parts()
        self._pass_over(parts)
        for path in reversed(parts):
            table = _read_part(path)
            if smaller_than is not None and len(table) >= smaller_than:
                break
            tables.insert(0, table)
            paths.append(path)
        if len(paths) > 1:
            self._write(pa.concat_tables(tables, promote_options="default"))
            for path in paths:
                path.unlink()


class RowWriter:
    """Writes rows to a store from a thread of its own: what arrives while a part is written becomes the next one.

    So nobody waits for the disk, a row waits for one part at most, and parts grow where writing is slow. `close` (or
    the end of a `with` block) returns when all rows are on disk. Raises RunError, there or at the next `put`, when they
    cannot be written; what is on disk by then stays. `allowed` is called before each part, and raises to prevent it.
    """

    def __init__(self, store: RowStore, allowed: Callable[[], None] = lambda: None) -> None:
        self.store, self.allowed = store, allowed
        self._waiting: list[Row] = []
        self._parts_written = 0
        self._error: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="rows", daemon=True)
        self._thread.start()

    def put(self, rows: Sequence[Row]) -> None:
        with self._changed:
            if self._error:
                raise self._error
            self._waiting.extend(rows)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if self._error:
            raise self._error

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while rows := self._take():
                self.allowed()
                self.store.append(rows)
                self._parts_written += 1
                if self._parts_written % PARTS_BEFORE_MERGING == 0:
                    self.store.compact(smaller_than=ROWS_NOT_TO_MERGE)
        except Exception as error:  # whatever it is, the driver has to hear of it
            with self._changed:
                self._error = error

    def _take(self) -> list[Row]:
        """What has arrived; waits for it. Empty when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            rows, self._waiting = self._waiting, []
            return rows


def _read_part(path: Location) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        return table if set(SCHEMA.names) <= set(table.column_names) else _lacks(table)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} cannot be read ({reason}); move it away and --resume scores its rows again") from None


def _lacks(table: pa.Table) -> pa.Table:
    missing = next(name for name in SCHEMA.names if name not in table.column_names)
    raise KeyError(f"it has no column {missing}")


def _first_of_each(rows: Iterable[Row]) -> Iterable[Row]:
    seen: set[str] = set()
    for row in rows:
        if row.arch_id not in seen:
            seen.add(row.arch_id)
            yield row
