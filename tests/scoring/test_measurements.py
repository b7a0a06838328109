"""What was trained, as append-only records."""

import dataclasses

import pyarrow.parquet as pq
import pytest

from tvt_ray.scoring.measurements import MEASUREMENTS, Measurement
from tvt_ray.storage.records import Records

ONE = Measurement("a1", epochs=3, seed=0, val_acc=61.5, seconds=2.25, recipe="abc")


def test_measurements_come_back_as_they_were(tmp_path):
    parts, two = Records(tmp_path, MEASUREMENTS), dataclasses.replace(ONE, epochs=5, val_acc=200 / 3)
    parts.append([ONE])
    parts.append([two])
    assert Records(tmp_path, MEASUREMENTS).read() == [ONE, two]
    parts.compact()
    assert Records(tmp_path, MEASUREMENTS).read() == [ONE, two]


def test_columns_are_those_of_the_contract(tmp_path):
    Records(tmp_path, MEASUREMENTS).append([ONE])
    assert pq.read_table(tmp_path).column_names == ["arch_id", "epochs", "seed", "val_acc", "seconds", "recipe"]
    assert Records(tmp_path, MEASUREMENTS).table().to_pylist() == [dataclasses.asdict(ONE)]


def test_of_equal_keys_the_first_counts(tmp_path):
    """A training that was repeated after a crash counts as it was first recorded."""
    parts = Records(tmp_path, MEASUREMENTS)
    again = dataclasses.replace(ONE, val_acc=1.0, seconds=9.0)
    parts.append([ONE, again])
    parts.append([again])
    assert parts.read() == [ONE]
    parts.compact()
    assert parts.read() == [ONE]


@pytest.mark.parametrize("change", [{"arch_id": "a2"}, {"epochs": 4}, {"seed": 1}, {"recipe": "other"}], ids=str)
def test_another_student_length_seed_or_recipe_is_another_measurement(change, tmp_path):
    other = dataclasses.replace(ONE, **change)
    Records(tmp_path, MEASUREMENTS).append([ONE, other])
    assert Records(tmp_path, MEASUREMENTS).read() == [ONE, other]


def test_columns_that_a_later_version_adds_are_ignored(tmp_path):
    parts = Records(tmp_path, MEASUREMENTS)
    table = MEASUREMENTS.to_table([ONE])
    pq.write_table(table.append_column("host", [["somewhere"]]), tmp_path / "part-000000.parquet")
    assert parts.read() == [ONE]
