"""From rows to what the surrogate learns from."""

import dataclasses

import numpy as np
import pytest

from tests.conftest import SMALL_SPACES, make_row
from tvt_ray.refining.features import feature_table, make_table, normal_scores


def rows_of(space, **readings):
    """All architectures of a small space; `readings` are functions of a row's number."""
    return [
        dataclasses.replace(
            make_row(i, **{name: function(i) for name, function in readings.items()}),
            arch=space.to_json(arch),
            params=space.cost(arch, 10).params,
            flops=space.cost(arch, 10).flops,
        )
        for i, arch in enumerate(space.enumerate())
    ]


def test_shape_and_readings_that_differ_are_columns(space):
    rows = rows_of(space, up=float, same=lambda i: 1.0)
    table = feature_table(rows, space)
    features = [space.features(arch) for arch in space.enumerate()]
    varied = [name for name in features[0] if len({each[name] for each in features}) > 1]
    assert table.names == (*varied, "up", "params", "flops")
    assert table.num_shape == len(varied)
    assert table.values.shape == (len(rows), len(varied) + 3)
    steps = dict(zip(table.names, table.units[: table.num_shape], strict=False))
    assert steps == {name: "presence" if name.startswith("has_") else "doubling" for name in varied}
    assert np.isfinite(table.values).all()


def test_a_reading_that_one_row_lacks_is_left_out():
    space = SMALL_SPACES["autoformer"]
    rows = rows_of(space, up=float, down=lambda i: -float(i))
    rows[3] = dataclasses.replace(rows[3], readings={"up": 3.0})
    assert feature_table(rows, space).names[-3:] == ("up", "params", "flops")


def test_doublings_have_one_scale_and_readings_are_normal_scores():
    table = make_table(
        {"wide": np.array([0.0, 4.0, 0.0, 4.0]), "deep": np.array([0.0, 0.0, 1.0, 1.0])},
        {"reading": np.array([1.0, 1e9, -5.0, 2.0])},
    )
    assert (table.values[:, :2] ** 2).mean() == pytest.approx(1)
    assert np.ptp(table.values[:, 0]) == pytest.approx(4 * np.ptp(table.values[:, 1]))
    assert table.shape == pytest.approx(np.array([[-2, -0.5], [2, -0.5], [-2, 0.5], [2, 0.5]]))
    assert table.values.mean(0) == pytest.approx(np.zeros(3))
    assert table.readings[:, 0].tolist() == pytest.approx(normal_scores(np.array([2.0, 4.0, 1.0, 3.0])).tolist())


def test_normal_scores_keep_order_and_ties_and_nothing_else():
    scores = normal_scores(np.array([5.0, 1.0, 5.0, -1e6]))
    assert scores[0] == scores[2] > scores[1] > scores[3]
    assert (scores.mean(), scores.std()) == (pytest.approx(0), pytest.approx(1))
    assert normal_scores(np.full(4, 7.0)).tolist() == [0, 0, 0, 0]


def test_rows_that_are_all_alike_have_no_columns():
    assert make_table({"wide": np.ones(3)}, {"reading": np.ones(3)}).values.shape == (3, 0)
    with pytest.raises(ValueError, match="at least one row"):
        feature_table([], SMALL_SPACES["pit"])
