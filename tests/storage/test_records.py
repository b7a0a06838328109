"""Records on disk in parts: whole or not at all, in order, each once, here and on a remote store."""

import dataclasses
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import make_row
from tvt_ray.errors import RunError, UsageError
from tvt_ray.scoring.rows import ROWS
from tvt_ray.storage.locations import write_atomically
from tvt_ray.storage.records import Records


def rows_in(folder):
    return Records(folder, ROWS).read()


def names_in(folder):
    """Without the mark of who wrote a part, which names on a remote store have."""
    return sorted(re.sub(r"-[0-9a-f]{8}(?=\.parquet$)", "", path.name) for path in folder.glob("*"))


def append_each(parts, rows):
    """A part for each row."""
    for row in rows:
        parts.append([row])


def test_rows_come_back_as_they_were(folder):
    parts = Records(folder, ROWS)
    rows = [make_row(1), make_row(2, synflow=1 / 3), make_row(3, status="failed")]
    parts.append(rows[:2])
    parts.append(rows[2:])
    assert rows_in(folder) == rows


def test_a_row_that_failed_by_its_device_is_replaced_by_the_one_that_was_read_later(folder):
    device = make_row(1, status="failed")
    device = dataclasses.replace(device, error="its worker's device failed: CUDA error: device-side assert triggered")
    own = dataclasses.replace(make_row(2, status="failed"), error="ArithmeticError: snip is not a finite number")
    parts = Records(folder, ROWS)
    parts.append([device, own, make_row(3)])
    parts.append([make_row(1), make_row(2), dataclasses.replace(make_row(3), seconds=99.0)])
    for _ in range(2):
        assert rows_in(folder) == [make_row(1), own, make_row(3)]
        parts.compact()
    again = dataclasses.replace(device, error="RuntimeError: CUDA out of memory")
    other = Records(folder / "other", ROWS)
    other.append([device])
    other.append([again])
    assert rows_in(folder / "other") == [again]  # the later word


def test_columns_are_those_of_the_contract(tmp_path):
    Records(tmp_path, ROWS).append([make_row(1)])
    table = pq.read_table(tmp_path)
    columns = ["arch_id", "space", "arch", "shape", "params", "flops", "depth", "status", "error", "seed", "seconds"]
    assert table.column_names == [*columns, "searcher", "device", "attention_similarity", "l2_norm"]
    assert json.loads(table["arch"][0].as_py()) == make_row(1).arch


def test_a_folder_without_parts_holds_nothing(folder):
    parts = Records(folder, ROWS)
    assert not parts.exist()
    assert parts.read() == []
    assert parts.table().num_rows == 0
    assert parts.table().schema == ROWS.schema
    parts.compact()
    parts.append([])
    assert not folder.exists()  # nothing is written before there is anything to write


def test_a_new_reader_goes_on_where_the_last_one_stopped(folder):
    for number in range(3):
        Records(folder, ROWS).append([make_row(number)])
    assert [row.arch_id for row in rows_in(folder)] == ["a0", "a1", "a2"]
    assert Records(folder, ROWS).exist()


def test_parts_are_in_the_order_of_their_numbers_however_many_digits_those_have(tmp_path):
    Records(tmp_path, ROWS).append([make_row(0)])
    (tmp_path / "part-000000.parquet").rename(tmp_path / "part-999999.parquet")
    append_each(Records(tmp_path, ROWS), [make_row(1), make_row(2)])
    assert names_in(tmp_path) == ["part-1000000.parquet", "part-1000001.parquet", "part-999999.parquet"]
    assert [row.arch_id for row in rows_in(tmp_path)] == ["a0", "a1", "a2"]
    Records(tmp_path, ROWS).compact()
    assert [row.arch_id for row in rows_in(tmp_path)] == ["a0", "a1", "a2"]


def test_of_two_records_with_one_key_the_first_counts(folder):
    parts, again = Records(folder, ROWS), dataclasses.replace(make_row(1), seconds=9.0)
    append_each(parts, [make_row(1), make_row(2), again])
    parts.append([make_row(3), dataclasses.replace(make_row(3), seconds=9.0)])
    assert rows_in(folder) == [make_row(1), make_row(2), make_row(3)]


def test_the_table_holds_what_is_read(folder):
    parts = Records(folder, ROWS)
    append_each(parts, [make_row(2), make_row(1, synflow=0.5), make_row(2)])
    table = parts.table()
    assert table["arch_id"].to_pylist() == ["a2", "a1"]
    assert table["synflow"].to_pylist() == [None, 0.5]  # a reading that a row lacks is null
    assert ROWS.from_table(table) == parts.read()


def test_compaction_keeps_rows_and_order_and_survives_being_cut_short(tmp_path):
    parts, rows = Records(tmp_path, ROWS), [make_row(number) for number in range(5)]
    append_each(parts, rows)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    parts.compact()
    assert len(list(tmp_path.iterdir())) == 1
    assert parts.read() == rows
    for path, content in files.items():  # as if killed before the old parts were removed
        path.write_bytes(content)
    assert rows_in(tmp_path) == rows


def test_what_stood_twice_after_a_kill_is_there_once_when_all_is_compacted(folder):
    """Others read the files too. A merge of small parts that came meanwhile had made one part of old and new."""
    rows = [make_row(number) for number in range(6)]
    parts = Records(folder, ROWS)
    for part in (rows[:3], rows[3:], rows, rows[:2]):
        parts.append(part)
    parts.compact(smaller_than=100)
    assert [len(parts._read_part(path)) for path in parts._paths()] == [14]
    Records(folder, ROWS).compact()
    assert [len(parts._read_part(path)) for path in parts._paths()] == [6]
    assert Records(folder, ROWS).read() == rows


def test_compaction_merges_small_parts_at_the_end_alone(folder):
    parts = Records(folder, ROWS)
    parts.append([make_row(number) for number in range(4)])
    append_each(parts, [make_row(4), make_row(5)])
    parts.compact(smaller_than=4)
    assert names_in(folder) == ["part-000000.parquet", "part-000003.parquet"]
    assert [row.arch_id for row in rows_in(folder)] == [f"a{number}" for number in range(6)]


def test_compacting_one_part_leaves_it_as_it_is(folder):
    parts = Records(folder, ROWS)
    parts.append([make_row(1)])
    parts.compact()
    assert names_in(folder) == ["part-000000.parquet"]


def test_compaction_joins_parts_with_other_readings(folder):
    parts, rows = Records(folder, ROWS), [make_row(1), make_row(2, synflow=0.5), make_row(3, status="failed")]
    append_each(parts, rows)
    parts.compact()
    assert rows_in(folder) == rows


def test_compacting_writes_over_no_part_of_another_writer(folder):
    late, early = Records(folder, ROWS), Records(folder, ROWS)
    append_each(early, [make_row(number) for number in range(3)])
    late.compact()
    assert rows_in(folder) == [make_row(number) for number in range(3)]


def test_two_drivers_of_one_folder_lose_nothing_of_each_other(folder):
    """On an object store, one that lost its lease while it slept goes on with the part that it was about to write."""
    early, late = Records(folder, ROWS), Records(folder, ROWS)
    for number in range(0, 6, 2):
        early.append([make_row(number)])
        late.append([make_row(number + 1)])
    assert sorted(row.arch_id for row in rows_in(folder)) == [f"a{number}" for number in range(6)]
    early.compact()
    late.append([make_row(6)])
    late.compact()
    assert sorted(row.arch_id for row in rows_in(folder)) == [f"a{number}" for number in range(7)]
    assert len(names_in(folder)) == 1


def test_merging_passes_over_parts_that_another_merges(folder, monkeypatch):
    ours, theirs = Records(folder, ROWS), Records(folder, ROWS)
    append_each(ours, [make_row(number) for number in range(3)])
    write = ours._write

    def write_late(table):
        theirs.compact()
        return write(table)

    monkeypatch.setattr(ours, "_write", write_late)
    ours.compact()
    assert sorted(row.arch_id for row in rows_in(folder)) == ["a0", "a1", "a2"]


def test_a_write_that_is_cut_short_leaves_no_part(folder):
    Records(folder, ROWS).append([make_row(1)])
    write_atomically(folder / ".part-000001.parquet.99.tmp", b"half")
    assert rows_in(folder) == [make_row(1)]


@pytest.mark.parametrize(
    "name", ["part-000014 (1).parquet", "part-000001.parquet.bak.parquet", "part-.parquet", "part-x1.parquet"]
)
def test_copies_that_a_file_manager_makes_are_no_parts(name, folder):
    parts = Records(folder, ROWS)
    append_each(parts, [make_row(1), make_row(2)])
    write_atomically(folder / name, b"no part")
    assert rows_in(folder) == [make_row(1), make_row(2)]
    again = Records(folder, ROWS)
    again.append([make_row(3)])
    again.compact()
    assert names_in(folder) == sorted([name, "part-000003.parquet"])
    assert rows_in(folder) == [make_row(1), make_row(2), make_row(3)]


def test_a_damaged_part_is_named(tmp_path):
    Records(tmp_path, ROWS).append([make_row(1)])
    part = next(tmp_path.iterdir())
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(UsageError, match=r"part-000000\.parquet cannot be read") as error:
        rows_in(tmp_path)
    assert "\n" not in str(error.value)


def test_a_part_whose_columns_have_names_that_are_no_text_is_named(tmp_path):
    Records(tmp_path, ROWS).append([make_row(1)])
    part = next(tmp_path.iterdir())
    part.write_bytes(part.read_bytes().replace(b"arch_id", b"arch\xf2id"))
    with pytest.raises(UsageError, match=r"part-000000\.parquet cannot be read \(.*utf-8") as error:
        rows_in(tmp_path)
    assert "\n" not in str(error.value)


def test_a_part_without_its_columns_is_named(tmp_path):
    pq.write_table(pa.table({"arch_id": ["a"]}), tmp_path / "part-000000.parquet")
    with pytest.raises(UsageError, match=r"part-000000\.parquet has no column space: it was not written by this"):
        rows_in(tmp_path)


def test_a_folder_named_as_a_part_is_named(tmp_path):
    (tmp_path / "part-000000.parquet").mkdir()
    with pytest.raises(UsageError, match=r"part-000000\.parquet cannot be read \(.*Is a directory"):
        rows_in(tmp_path)


@pytest.mark.timeout(30)
def test_a_dangling_link_named_as_a_part_is_named_and_ends_the_reading(tmp_path):
    Records(tmp_path, ROWS).append([make_row(1)])
    (tmp_path / "part-000001.parquet").symlink_to(tmp_path / "gone.parquet")
    with pytest.raises(UsageError, match=r"part-000001\.parquet is listed but not there; remove it") as error:
        rows_in(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"part-000001\.parquet is listed but not there"):
        Records(tmp_path, ROWS).table()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "rows").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="cannot be written"):
        Records(tmp_path / "rows", ROWS).append([make_row(1)])


def test_a_reader_survives_merges_between_listing_and_reading(folder, monkeypatch):
    """Twice in a row: what was merged is merged again before it was read."""
    writer, reader = Records(folder, ROWS), Records(folder, ROWS)
    append_each(writer, [make_row(0), make_row(1)])
    listing, merges = reader._paths, [2, 3]

    def list_and_be_overtaken():
        paths = listing()
        if merges:
            writer.append([make_row(merges.pop(0))])
            writer.compact()
        return paths

    monkeypatch.setattr(reader, "_paths", list_and_be_overtaken)
    assert reader.read() == [make_row(number) for number in range(4)]
    assert merges == []


@pytest.mark.slow
def test_a_part_that_becomes_more_in_memory_than_any_run_writes_is_refused(folder):
    """300,000 rows in some kilobytes: the same row, over and over."""
    row = make_row(1)
    table = ROWS.to_table([dataclasses.replace(row, arch={"x": "y" * 4000})])
    repeated = pa.table({name: pa.repeat(table[name][0], 300_000) for name in table.column_names}, ROWS.schema)
    sink = pa.BufferOutputStream()
    pq.write_table(repeated.select(ROWS.schema.names), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    assert len(data) < 200_000
    write_atomically(folder / "part-000000.parquet", data)
    with pytest.raises(UsageError, match=r"part-000000\.parquet holds more than a run writes into"):
        rows_in(folder)


def test_two_that_write_at_a_time_lose_nothing(folder):
    """Each found the same last part; both of theirs are there in the end."""
    first, second = Records(folder, ROWS), Records(folder, ROWS)
    first.append([make_row(1)])
    second.append([make_row(2)])
    first.append([make_row(3)])
    second.compact()
    first.append([make_row(4)])
    assert {row.arch_id for row in rows_in(folder)} == {make_row(number).arch_id for number in (1, 2, 3, 4)}
