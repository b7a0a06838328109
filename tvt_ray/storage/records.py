"""Records on disk: append-only Parquet parts, each written whole or not at all: a killed run leaves good ones."""

from __future__ import annotations

import contextlib
import re
import threading
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location, RemotePath, first_line, write_new

PARTS_BEFORE_MERGING = 64  # small parts that a run gathers before they become one
# A part with as many is left alone until the run ends: each record is rewritten a few times at most.
RECORDS_NOT_TO_MERGE = 8192
# What a part may become in memory: so many bytes, and so many times its own. What runs write is some ten times its own.
MOST_BYTES, MOST_GROWTH, BATCH_ROWS = 2**26, 100, 8192
_ADVICE = "move it away and --resume makes its rows again"
# Copies that a file manager makes ("part-1 (1).parquet") are none.
_PART_NAME = re.compile(r"part-(\d+)(-[0-9a-f]{8})?\.parquet")

R = TypeVar("R")


@dataclass(frozen=True)
class Codec(Generic[R]):
    """How records of a kind become a table and back; of two with one key, the first that was written counts, but for
    those that `may_be_replaced`.
    """

    schema: pa.Schema  # columns that every part has; there may be more
    to_table: Callable[[Sequence[R]], pa.Table]
    from_table: Callable[[pa.Table], list[R]]
    key: Callable[[R], Hashable]
    may_be_replaced: Callable[[R], bool] = lambda record: False  # by a later one of its key
    later: frozenset[str] = frozenset()  # columns that there were not at first


class Records(Generic[R]):
    """A folder of parts. One driver writes to it.

    Where an object store keeps it, names of parts hold their writer's mark: a store gives one name to two writers, of
    which the later replaces what the earlier wrote, and a driver that lost its lease while it slept may still write.
    """

    def __init__(self, folder: Location, codec: Codec[R]) -> None:
        self.folder, self.codec, self._next = folder, codec, 0
        self._mark = f"-{uuid.uuid4().hex[:8]}" if isinstance(folder, RemotePath) else ""
        self._pass_over(self._paths())

    def _paths(self) -> list[Location]:
        found = [path for path in self.folder.glob("part-*.parquet") if _PART_NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (_number(path), path.name))

    def _pass_over(self, paths: Sequence[Location]) -> None:
        """Records on disk are never written over, whoever wrote them."""
        self._next = max([self._next, *(_number(path) + 1 for path in paths)])

    def exist(self) -> bool:
        """Whether anything was written."""
        return bool(self._paths())

    def append(self, records: Sequence[R]) -> None:
        """Writes a new part; on return the records are on disk. Raises RunError when they cannot be written."""
        if records:
            self._write(self.codec.to_table(records))

    def _write(self, table: pa.Table) -> Location:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        data = sink.getvalue().to_pybytes()
        while True:
            path = self.folder / f"part-{self._next:06}{self._mark}.parquet"
            self._next += 1
            if isinstance(path, RemotePath):
                path.write_bytes(data)
                return path
            if write_new(path, data):  # else another process took the number meanwhile
                return path

    def read(self) -> list[R]:
        """All records, in the order in which they were written, one for each key.

        Raises UsageError that names a part that cannot be read.
        """
        return self._distinct(self._tables())

    def _distinct(self, tables: Iterable[tuple[Location, pa.Table]]) -> list[R]:
        first = dict[Hashable, R]()
        for path, table in tables:
            try:
                records = self.codec.from_table(table)
            except (ValueError, TypeError) as error:
                raise UsageError(f"{path} holds what no run wrote ({first_line(error)}); {_ADVICE}") from None
            for record in records:
                known = first.setdefault(self.codec.key(record), record)
                if known is not record and self.codec.may_be_replaced(known):
                    first[self.codec.key(record)] = record
        return list(first.values())

    def table(self) -> pa.Table:
        """What `read` gives, as one table."""
        return self.codec.to_table(self.read())

    def _tables(self) -> list[tuple[Location, pa.Table]]:
        """Of all parts. A driver at work merges parts between listing and reading, and then they are listed again."""
        paths = self._paths()
        while True:
            try:
                return [(path, self._read_part(path)) for path in paths]
            except FileNotFoundError:
                before, paths = paths, self._paths()
                gone = [path for path in paths if not path.exists()]
                if paths == before and gone:  # nobody merges: one is listed, and still not there (a dangling link)
                    raise UsageError(f"{gone[0]} is listed but not there; remove it, and --resume goes on") from None

    def compact(self, smaller_than: int | None = None) -> None:
        """Rewrites all parts (or those at the end with fewer records each) as one.

        Killed in between, old and new stand side by side: reading drops the repeats, and so does rewriting all parts,
        since others read the files too.
        """
        tables, parts = list[tuple[Location, pa.Table]](), self._paths()
        self._pass_over(parts)
        for path in reversed(parts):
            try:
                table = self._read_part(path)
            except FileNotFoundError:  # a dangling link, of which reading says more, or another merged it meanwhile
                break
            if smaller_than is not None and len(table) >= smaller_than:
                break
            tables.insert(0, (path, table))
        if not tables:
            return
        merged = pa.concat_tables([table for _, table in tables], promote_options="default")
        if smaller_than is None and len(records := self._distinct(tables)) < len(merged):
            merged = self.codec.to_table(records)
        if len(tables) > 1 or len(merged) < len(tables[0][1]):
            self._write(merged)
            for path, _ in tables:
                with contextlib.suppress(FileNotFoundError):  # as above
                    path.unlink()

    def _read_part(self, path: Location) -> pa.Table:
        """Raises FileNotFoundError for one that is gone."""
        try:
            # In this thread alone: one of Arrow's that still held the bytes when Python ends would abort the process.
            data = path.read_bytes()
            file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
            batches, room = list[pa.RecordBatch](), MOST_BYTES + MOST_GROWTH * len(data)
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                batches.append(batch)
                room -= batch.nbytes
                if room < 0:
                    raise UsageError(f"{path} holds more than a run writes into {len(data):,} bytes; {_ADVICE}")
            table = pa.Table.from_batches(batches, file.schema_arrow)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:  # the last: of a column's name
            raise UsageError(f"{path} cannot be read ({first_line(error)}); {_ADVICE}") from None
        needed = [name for name in self.codec.schema.names if name not in self.codec.later]
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise UsageError(f"{path} has no column {missing[0]}: it was not written by this version of tvt_ray")
        return table


class RecordWriter(Generic[R]):
    """Writes records to parts from a thread of its own: what arrives while a part is written becomes the next one.

    So nobody waits for the disk, a record waits for one part at most, and parts grow where writing is slow. `close` (or
    the end of a `with` block) returns when all are on disk. Raises RunError, there or at the next `put`, when they
    cannot be written; what is on disk by then stays. `allowed` is called before each part, and raises to prevent it.
    """

    def __init__(self, parts: Records[R], allowed: Callable[[], None] = lambda: None) -> None:
        self.parts, self.allowed = parts, allowed
        self._waiting: list[R] = []
        self._parts_written = 0
        self._error: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="parts", daemon=True)
        self._thread.start()

    def put(self, records: Sequence[R]) -> None:
        """Takes records to be written; raises what an earlier write raised."""
        with self._changed:
            if self._error:
                raise self._error
            self._waiting.extend(records)
            self._changed.notify()

    def close(self) -> None:
        """Waits until all is on disk. Raises RunError where it cannot be written."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if self._error:
            raise self._error

    def __enter__(self) -> RecordWriter[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while records := self._take():
                self.allowed()
                self.parts.append(records)
                self._parts_written += 1
                if self._parts_written % PARTS_BEFORE_MERGING == 0:
                    self.parts.compact(smaller_than=RECORDS_NOT_TO_MERGE)
        except Exception as error:  # whatever it is, the driver has to hear of it
            with self._changed:
                self._error = error

    def _take(self) -> list[R]:
        """What has arrived; waits for it. Empty when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            records, self._waiting = self._waiting, []
            return records


def _number(path: Location) -> int:
    match = _PART_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])
