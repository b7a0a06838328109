import dataclasses
import json
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPO
from tvt_ray.errors import RunError, UsageError
from tvt_ray.search.rows import Row
from tvt_ray.search.selection import pareto_front, top_k
from tvt_ray.search.store import RowStore, RowWriter


def row(number, score=0.5, flops=10, status="ok"):
    components = {"t": -number / 7, "s": number / 3} if status == "ok" else {}
    return Row(
        arch_id=f"a{number}",
        space="pit",
        arch={"base_dim": 16, "mlp_ratio": 1.5, "depth": [1, number, 1]},
        params=number,
        flops=flops,
        status=status,
        error=None if status == "ok" else "RuntimeError: no",
        seed=3,
        seconds=0.25,
        components=components,
        score=score if status == "ok" else None,
    )


def test_rows_come_back_as_they_were(tmp_path):
    store, rows = RowStore(tmp_path / "rows"), [row(1), row(2, score=1 / 3), row(3, status="failed")]
    store.append(rows[:2])
    store.append(rows[2:])
    assert RowStore(tmp_path / "rows").read() == rows


def test_columns_are_those_of_the_contract(tmp_path):
    RowStore(tmp_path).append([row(1)])
    table = pq.read_table(tmp_path)
    row_columns = ["arch_id", "space", "arch", "score", "params", "flops", "status", "error", "seed", "seconds"]
    assert table.column_names == [*row_columns, "s", "t"]
    assert json.loads(table["arch"][0].as_py()) == row(1).arch


def test_a_new_store_goes_on_where_the_last_one_stopped(tmp_path):
    for number in range(3):
        RowStore(tmp_path).append([row(number)])
    assert [r.arch_id for r in RowStore(tmp_path).read()] == ["a0", "a1", "a2"]


def test_compaction_keeps_rows_and_order_and_survives_being_cut_short(tmp_path):
    store, rows = RowStore(tmp_path), [row(number) for number in range(5)]
    for each in rows:
        store.append([each])
    parts = {path: path.read_bytes() for path in tmp_path.iterdir()}
    store.compact()
    assert len(list(tmp_path.iterdir())) == 1
    assert store.read() == rows
    for path, content in parts.items():  # as if killed before the old parts were removed
        path.write_bytes(content)
    assert RowStore(tmp_path).read() == rows


def test_a_write_that_is_cut_short_leaves_no_part(tmp_path):
    store = RowStore(tmp_path)
    store.append([row(1)])
    (tmp_path / ".part-000001.parquet.99.tmp").write_bytes(b"half")
    assert RowStore(tmp_path).read() == [row(1)]


def test_a_damaged_part_is_named(tmp_path):
    store = RowStore(tmp_path)
    store.append([row(1)])
    part = next(tmp_path.iterdir())
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(UsageError, match=r"part-000000\.parquet cannot be read"):
        RowStore(tmp_path).read()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "rows").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="cannot be written"):
        RowStore(tmp_path / "rows").append([row(1)])


def test_top_k_is_by_score_with_a_fixed_order_of_ties():
    rows = [row(1, 0.2), row(2, 0.9, flops=20), row(3, 0.9, flops=10), row(4, status="failed"), row(5, 0.9, flops=10)]
    assert [r.arch_id for r in top_k(rows, 3)] == ["a3", "a5", "a2"]
    assert top_k(rows[::-1], 3) == top_k(rows, 3)
    assert len(top_k(rows, 99)) == 4


def test_pareto_front_holds_what_nothing_beats():
    rows = [row(1, 0.2, 5), row(2, 0.1, 6), row(3, 0.5, 6), row(4, 0.5, 7), row(5, 0.9, 9), row(6, status="failed")]
    assert [r.arch_id for r in pareto_front(rows)] == ["a1", "a3", "a5"]
    beaten = [r for r in rows if r.status == "ok" and r not in pareto_front(rows)]
    assert all(any(f.score >= r.score and f.flops <= r.flops for f in pareto_front(rows)) for r in beaten)
    assert pareto_front([dataclasses.replace(r, score=None) for r in rows]) == []


def test_the_writer_has_everything_on_disk_when_it_closes(tmp_path):
    rows = [row(number) for number in range(500)]
    with RowWriter(RowStore(tmp_path)) as writer:
        for each in rows:
            writer.put([each])
    assert RowStore(tmp_path).read() == rows


def test_rows_reach_the_disk_without_closing(tmp_path):
    writer = RowWriter(RowStore(tmp_path))
    writer.put([row(1)])
    deadline = time.monotonic() + 10
    while not RowStore(tmp_path).read():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    writer.close()


def test_what_arrives_during_a_write_becomes_one_part(tmp_path, monkeypatch):
    """A slow disk makes larger parts, not a longer queue."""
    store = RowStore(tmp_path)
    append, started, go = store.append, threading.Event(), threading.Event()

    def slow(rows):
        started.set()
        assert go.wait(10)
        append(rows)

    monkeypatch.setattr(store, "append", slow)
    with RowWriter(store) as writer:
        writer.put([row(0)])
        assert started.wait(10)
        for number in range(1, 40):
            writer.put([row(number)])
        go.set()
    assert [len(pq.read_table(path)) for path in sorted(tmp_path.glob("*.parquet"))] == [1, 39]


def test_small_parts_are_merged_on_the_way_and_large_ones_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tvt_ray.search.store.PARTS_BEFORE_MERGING", 4)
    monkeypatch.setattr("tvt_ray.search.store.ROWS_NOT_TO_MERGE", 6)
    store = RowStore(tmp_path)
    for number in range(16):
        with RowWriter(store) as writer:
            writer._parts_written = number % 4
            writer.put([row(number)])
    assert [len(pq.read_table(path)) for path in sorted(tmp_path.glob("*.parquet"))] == [8, 8]
    assert store.read() == [row(number) for number in range(16)]


def test_a_disk_that_takes_no_more_is_reported_and_loses_nothing(tmp_path):
    """The file size limit of a process stands for a full disk: the write fails in the same place."""
    script = f"""
import resource, signal, sys
from tests.search.test_store import row
from tvt_ray.errors import RunError
from tvt_ray.search.store import RowStore, RowWriter, RowWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RowStore(__import__("pathlib").Path({str(tmp_path)!r}))
store.append([row(n) for n in range(5)])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    with RowWriter(store) as writer:
        writer.put([row(n) for n in range(5, 400)])
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("part-000001.parquet cannot be written: File too large")
    assert RowStore(tmp_path).read() == [row(number) for number in range(5)]
    assert [path.name for path in tmp_path.iterdir()] == ["part-000000.parquet"]


def test_compacting_writes_over_no_part_of_another_store(tmp_path):
    late, early = RowStore(tmp_path), RowStore(tmp_path)
    for number in range(3):
        early.append([row(number)])
    late.compact()
    assert RowStore(tmp_path).read() == [row(number) for number in range(3)]


def test_a_part_without_its_columns_is_named(tmp_path):
    pq.write_table(pa.table({"arch_id": ["a"]}), tmp_path / "part-000000.parquet")
    with pytest.raises(UsageError, match=r"part-000000\.parquet cannot be read \('it has no column space'\)"):
        RowStore(tmp_path).read()
