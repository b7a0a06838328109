"""The writer's thread: nobody waits for the disk, and what it cannot write is heard of."""

import contextlib
import resource
import signal
import threading
import time

import pyarrow.parquet as pq
import pytest

from tests.conftest import make_row
from tvt_ray.errors import RunError
from tvt_ray.scoring.rows import ROWS
from tvt_ray.storage.records import Records, RecordWriter


def rows_in(folder):
    return Records(folder, ROWS).read()


def lengths(folder):
    """Of the parts, in order."""
    return [len(pq.read_table(path)) for path in sorted(folder.glob("*.parquet"))]


def test_the_writer_has_everything_on_disk_when_it_closes(folder):
    rows = [make_row(number) for number in range(500)]
    with RecordWriter(Records(folder, ROWS)) as writer:
        for each in rows:
            writer.put([each])
    assert rows_in(folder) == rows


def test_rows_reach_the_disk_without_closing(tmp_path):
    writer = RecordWriter(Records(tmp_path, ROWS))
    writer.put([make_row(1)])
    deadline = time.monotonic() + 10
    while not rows_in(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    writer.close()


def test_what_arrives_during_a_write_becomes_one_part(tmp_path, monkeypatch):
    """A slow disk makes larger parts, not a longer queue."""
    parts = Records(tmp_path, ROWS)
    append, started, go = parts.append, threading.Event(), threading.Event()

    def slow(rows):
        started.set()
        assert go.wait(10)
        append(rows)

    monkeypatch.setattr(parts, "append", slow)
    with RecordWriter(parts) as writer:
        writer.put([make_row(0)])
        assert started.wait(10)
        for number in range(1, 40):
            writer.put([make_row(number)])
        go.set()
    assert lengths(tmp_path) == [1, 39]


def test_small_parts_are_merged_on_the_way_and_large_ones_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tvt_ray.storage.records.PARTS_BEFORE_MERGING", 4)
    monkeypatch.setattr("tvt_ray.storage.records.RECORDS_NOT_TO_MERGE", 6)
    parts = Records(tmp_path, ROWS)
    for number in range(16):
        with RecordWriter(parts) as writer:
            writer._parts_written = number % 4
            writer.put([make_row(number)])
    assert lengths(tmp_path) == [8, 8]
    assert parts.read() == [make_row(number) for number in range(16)]


@pytest.fixture
def full_disk():
    """No file of this process grows over 2,000 bytes: the write fails where one on a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    @contextlib.contextmanager
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    yield limited
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_takes_no_more_is_reported_and_loses_nothing(tmp_path, full_disk):
    parts = Records(tmp_path, ROWS)
    parts.append([make_row(number) for number in range(5)])
    with (
        full_disk(),
        pytest.raises(RunError, match=r"part-000001\.parquet cannot be written: File too large$"),
        RecordWriter(parts) as writer,
    ):
        writer.put([make_row(number) for number in range(5, 400)])
    assert rows_in(tmp_path) == [make_row(number) for number in range(5)]
    assert [path.name for path in tmp_path.iterdir()] == ["part-000000.parquet"]


def test_what_could_not_be_written_is_raised_at_the_next_put_too(tmp_path):
    (tmp_path / "rows").write_text("a file where the folder should be")
    writer = RecordWriter(Records(tmp_path / "rows", ROWS))
    writer.put([make_row(1)])
    writer._thread.join(10)
    with pytest.raises(RunError, match="cannot be written"):
        writer.put([make_row(2)])
    with pytest.raises(RunError, match="cannot be written"):
        writer.close()


def test_nothing_is_written_where_that_is_not_allowed(folder):
    def never():
        raise RunError("the folder was taken over")

    writer = RecordWriter(Records(folder, ROWS), never)
    writer.put([make_row(1)])
    with pytest.raises(RunError, match="the folder was taken over"):
        writer.close()
    assert not Records(folder, ROWS).exist()
