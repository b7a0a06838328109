"""Scores against accuracies, as tables."""

import numpy as np
import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.errors import UsageError
from tvt_ray.judging.study import RankRequest, rank
from tvt_ray.judging.tables import mean_kendall, tabulate
from tvt_ray.judging.truth import GroundTruth, Scored, Trained

SPACE = SMALL_SPACES["autoformer"]
ARCHS = list(SPACE.enumerate())[:5]


def scored(accuracies, **scores):
    """`scores`: by proxy, a list for each seed."""
    entries = [
        Trained(arch, SPACE.arch_id(arch), 1000 * (number + 1), 100, SPACE.shape(arch), accuracy)
        for number, (arch, accuracy) in enumerate(zip(ARCHS, accuracies, strict=True))
    ]
    return Scored(
        GroundTruth(SPACE, tuple(entries)), {name: np.array(values, dtype=float) for name, values in scores.items()}
    )


def columns(**accuracies):
    return [dict(zip(accuracies, values, strict=True)) for values in zip(*accuracies.values(), strict=True)]


def test_a_band_of_parameters_is_ranked_by_itself_and_beside_the_whole(config):
    one = scored(columns(x_acc=[1, 2, 3, 5, 4]), params=[[1, 2, 3, 4, 5]])
    result = rank(config, RankRequest((), ("params",), min_params=1000, max_params=3000), [one])
    assert [entry.n for entry in (*result.columns, *result.whole_table)] == [3, 5]
    assert [entry.kendall for entry in (*result.columns, *result.whole_table)] == pytest.approx([1, 0.8])
    with pytest.raises(UsageError, match=r"2 of the 5 autoformer architectures have 0 to 2,000 parameters"):
        tabulate([one], None, None, 2000)


def test_a_column_where_tau_is_not_defined_counts_as_nothing():
    one = scored(columns(x_acc=[1, 2, 3, 5, 4], y_acc=[7] * 5), params=[[1, 2, 3, 4, 5]], tvt=[[2, 1, 3, 5, 4]])
    table = tabulate([one], None)
    assert [(entry.column, entry.proxy, entry.kendall) for entry in table] == [
        ("x_acc", "params", pytest.approx(0.8)),
        ("x_acc", "tvt", pytest.approx(0.8)),
        ("y_acc", "params", None),
        ("y_acc", "tvt", None),
    ]
    assert mean_kendall(table) == {"params": pytest.approx(0.4), "tvt": pytest.approx(0.4)}


def test_seeds_are_told_apart_and_their_noise_is_said(config):
    one = scored(columns(x_acc=[1, 2, 3, 4, 5]), tvt=[[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    result = rank(config, RankRequest((), ("tvt",), ("x_acc",), num_seeds=2), [one])
    (entry,) = result.columns
    assert entry.kendall_by_seed == pytest.approx((1, -1))
    assert entry.kendall is None  # their mean is constant
    assert [(share.proxy, share.noise_share) for share in result.noise] == [("tvt", 1.0)]
    assert (result.num_seeds, result.whole_table, result.min_params) == (2, (), None)


def test_every_column_has_tau_at_equal_size():
    one = scored(columns(x_acc=[1, 2, 3, 5, 4]), params=[[1, 2, 3, 4, 5]])
    (entry,) = tabulate([one], None)
    assert (entry.kendall_equal_params, entry.num_equal_pairs) == (None, 0)  # each has 1,000 more than the last
    assert (entry.kendall_equal_flops, entry.num_equal_flops_pairs) == (pytest.approx(0.8), 10)
