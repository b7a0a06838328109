"""The ranking that measurements give."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.ground_truth import sample_archs
from tests.conftest import SMALL_SPACES, make_row
from tvt_ray.refining.learned import CERTAINTY, MEASUREMENTS, Learned, Measurement, choose_recipe
from tvt_ray.scoring.ranking import Entry, by_score
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


SPACE = SMALL_SPACES["autoformer"].model_copy(update={"embed_dim": (12, 18, 24)})


def learned(measurements, rungs=(1, 3), count=30):
    """Rows of different architectures whose prior falls with their number."""
    rows = [
        dataclasses.replace(make_row(number, zen=float(number)), arch=SPACE.to_json(arch), shape=SPACE.shape(arch))
        for number, arch in enumerate(sample_archs(SPACE, count, seed=0))
    ]
    prior = by_score("zen", [Entry(row, -float(number)) for number, row in enumerate(rows)])
    return Learned(prior, SPACE, tuple(measurements), rungs)


def trained(number, epochs, accuracy, seed=0, recipe="r"):
    return [Measurement(f"a{number}", n, seed, accuracy + n, 1.0, recipe) for n in range(1, epochs + 1)]


def shapes(entries):
    return [each.row.shape for each in entries]


def test_with_few_measurements_the_prior_stays():
    few = learned([m for number in range(4) for m in trained(number, 3, 10 * number)])
    assert few.prediction is None
    assert few.ranking.by == "measured"
    assert [each.row.arch_id for each in few.ranking.scored] == [each.row.arch_id for each in few.entries]


def test_measurements_turn_a_wrong_prior_round():
    """Accuracy grows with the number, the prior falls with it."""
    known = learned([m for number in range(0, 30, 2) for m in trained(number, 3, 40 + number)])
    assert known.prediction.num_measured >= 8
    assert known.ranking.scored[0].row.params > 20  # make_row's parameters are its number
    assert known.ranking.scored[0].score > known.ranking.scored[-1].score


def test_the_smallest_that_is_most_likely_as_good_is_chosen():
    """Of thirty, accuracy hardly grows from the tenth on. Parameters are numbers (make_row)."""
    accuracy = [40 + 2.0 * min(number, 10) for number in range(30)]
    known = learned([m for number in range(30) for seed in (0, 1) for m in trained(number, 3, accuracy[number], seed)])
    first = known.ranking.top(1)[0]
    close, wide = known.as_good(1.0), known.as_good(9.0)
    assert first.row.params >= 10
    assert 9 <= close.entry.row.params < first.row.params
    assert wide.entry.row.params < close.entry.row.params
    assert close.sentence() == f"is within 1 point of the best with a chance of {100 * close.chance:.0f} %"
    for found in (close, wide):
        assert found.chance >= CERTAINTY
        assert found.entry.score >= first.score - found.points
    assert known.as_good(1.0) == close  # draws are the same
    costs = -np.array([each.row.params for each in known.entries], float)
    assert known.as_good(1.0, costs).entry.row.params > close.entry.row.params
    assert learned(trained(0, 3, 50)).as_good() is None


def test_nothing_is_as_good_as_a_first_that_is_far_ahead_but_itself():
    known = learned([m for number in range(20) for m in trained(number, 3, 80 if number == 19 else 20 + 0.1 * number)])
    first = known.ranking.top(1)[0]
    assert known.as_good(1.0).entry.row.arch_id == first.row.arch_id
    assert known.as_good(1.0).chance == 1


def test_of_a_shape_that_was_measured_its_copies_are_left_out():
    known = learned(trained(0, 1, 50))
    first = next(each.row for each in known.prior.scored if each.row.arch_id == "a0")
    assert shapes(known.prior.scored).count(first.shape) > 1
    assert shapes(known.entries).count(first.shape) == 1
    assert known.entries[known.index["a0"]].row == first


def test_only_rungs_are_observed_and_the_longest_training_is_told():
    known = learned([*trained(0, 3, 50), *trained(0, 1, 40, seed=1), *trained(1, 2, 30)])
    seen = {(each.epochs, each.seed, each.val_acc) for each in known.observations}
    assert seen == {(1, 0, 51), (3, 0, 53), (1, 1, 41), (1, 0, 31)}
    assert known.last_measured("a0") == Measurement("a0", 3, 0, 53, 1.0, "r")
    assert known.last_measured("a9") is None
    with pytest.raises(KeyError):
        known.index["a99"]


def test_measurements_are_of_one_recipe():
    mixed = [*trained(0, 2, 50, recipe="old"), *trained(1, 1, 50, recipe="new"), *trained(2, 1, 50, recipe="new")]
    assert {each.recipe for each in choose_recipe(mixed, None)} == {"new"}
    assert {each.arch_id for each in choose_recipe(mixed, "old")} == {"a0"}
    assert choose_recipe(mixed, "other") == ()
    assert choose_recipe([], None) == ()
    assert {each.recipe for each in choose_recipe(mixed[:3], None)} == {"new"}  # of equals the later one
