"""The row: what scores are made of, what it is on disk, and whether a stranger's can be believed."""

import dataclasses
import random

import pyarrow.parquet as pq
import pytest

from tests.conftest import SMALL_SPACES, make_row
from tvt_ray.errors import UsageError
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.scoring.reader import make_row as make_real_row
from tvt_ray.scoring.rows import ARITHMETIC, ROWS, rows_to_table, table_to_rows, verified
from tvt_ray.storage.records import Records


@pytest.fixture
def real(space):
    """A row that belongs to an architecture of the space."""
    task = ReadingTask(space, 10, (), 0, probe=None)
    return make_real_row(task, space.sample(random.Random(0)), {"zen": 0.5}, None, 0.1)


def test_a_score_is_made_of_readings_and_of_arithmetic():
    row = make_row(4, flops=12, zen=0.5)
    assert row.values == {"zen": 0.5, "params": 4.0, "flops": 12.0, "depth": 6.0}
    assert ARITHMETIC == ("params", "flops", "depth")
    assert all(isinstance(value, float) for value in row.values.values())


def test_arithmetic_is_believed_before_a_reading_of_its_name():
    assert make_row(4, params=99.0).values["params"] == 4.0


def test_rows_become_a_table_and_come_back():
    rows = [make_row(1), make_row(2, zen=1 / 3), make_row(3, status="failed")]
    table = rows_to_table(rows)
    assert table_to_rows(table) == rows
    assert table.column_names[-3:] == ["attention_similarity", "l2_norm", "zen"]
    assert table["zen"].to_pylist() == [None, 1 / 3, None]
    assert rows_to_table([]).column_names == ROWS.schema.names
    assert table_to_rows(rows_to_table([])) == []


def test_rows_of_before_there_were_devices_are_read(tmp_path):
    records = Records(tmp_path, ROWS)
    pq.write_table(rows_to_table([make_row(1)]).drop_columns(["device"]), tmp_path / "part-000000.parquet")
    records.append([dataclasses.replace(make_row(2), device="CPU, AVX2")])
    assert [row.device for row in records.read()] == ["", "CPU, AVX2"]
    records.compact()
    assert records.read() == [make_row(1), dataclasses.replace(make_row(2), device="CPU, AVX2")]


def test_an_architecture_is_a_row_once():
    assert ROWS.key(make_row(1)) == ROWS.key(make_row(1, zen=9.0)) != ROWS.key(make_row(2))


def test_a_row_of_the_space_is_believed(real, space):
    assert verified(real, space) is real


@pytest.mark.parametrize("arch_id", ["../../..", "/etc", "", "autoformer-e24-d2-000000000000", "a/../b"])
def test_an_id_that_is_not_its_architectures_is_refused(arch_id, real, space):
    """It would become a path."""
    with pytest.raises(UsageError, match="the run folder was tampered with") as error:
        verified(dataclasses.replace(real, arch_id=arch_id), space)
    assert repr(arch_id) in str(error.value)
    assert real.arch_id in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arch",
    [
        {},
        [],
        None,
        "../../..",
        {"base_dim": 8},
        {"embed_dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": [2.0, 2.0]},
        {"embed_dim": [24], "depth": 2, "num_heads": [[2], {}], "mlp_ratio": [2.0, 2.0]},
        {"base_dim": None, "depth": [1, 1, 1], "num_heads": [[], 1, 1], "mlp_ratio": {}},
    ],
    ids=repr,
)
def test_what_is_no_architecture_of_the_space_is_refused(arch, real, space):
    with pytest.raises(UsageError, match=rf"holds no architecture of the space {space.name}: ") as error:
        verified(dataclasses.replace(real, arch=arch), space)
    assert "\n" not in str(error.value)


def test_a_row_of_another_space_is_refused(real, space):
    other = next(each for name, each in SMALL_SPACES.items() if name != space.name)
    with pytest.raises(UsageError, match=rf"row '{real.arch_id}' holds no architecture of the space {other.name}"):
        verified(real, other)
