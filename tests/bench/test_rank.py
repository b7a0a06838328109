"""Statistics against scipy and against hand-made tables; files of the real format."""

import json
import random

import numpy as np
import pytest
from scipy import stats

from tests.conftest import SMALL_SPACES
from tvt_ray.bench.rank import (
    agreement,
    gain_at_budgets,
    kendall_resampled,
    noise_share,
    partial_correlation,
    read_ground_truth,
)
from tvt_ray.errors import UsageError
from tvt_ray.space import as_space

RNG = np.random.default_rng(0)


def test_resampled_tau_is_scipys_of_each_resample_ties_included():
    x, y = RNG.integers(0, 5, 30).astype(float), RNG.normal(size=30)
    draws = RNG.integers(0, 30, (20, 30))
    expected = [stats.kendalltau(x[rows], y[rows])[0] for rows in draws]
    assert kendall_resampled(x, y, draws) == pytest.approx(expected)


def test_agreement_of_a_perfect_an_inverse_and_a_constant_score():
    accuracy = np.linspace(60, 70, 21)
    perfect, inverse, constant = (agreement(s, accuracy) for s in (accuracy**3, -accuracy, np.ones(21)))
    assert (perfect.kendall, perfect.spearman) == (pytest.approx(1), pytest.approx(1))
    assert perfect.kendall_ci95 == (pytest.approx(1), pytest.approx(1))
    assert (perfect.top1_regret, perfect.top5_regret, perfect.top1_gain) == (0, 0, 5)
    assert inverse.kendall == pytest.approx(-1)
    assert inverse.top1_regret == 10
    assert inverse.top5_regret == pytest.approx(8)
    assert constant.kendall is constant.kendall_ci95 is constant.pearson is None
    assert constant.top1_regret == 10  # ties count against the score


def test_intervals_hold_the_estimate_and_narrow_with_more_architectures():
    accuracy = RNG.normal(size=200)
    score = accuracy + RNG.normal(size=200)
    few, many = agreement(score[:30], accuracy[:30]), agreement(score, accuracy)
    for result in (few, many):
        for name in ("kendall", "spearman", "pearson"):
            low, high = getattr(result, f"{name}_ci95")
            assert low < getattr(result, name) < high
    width = [high - low for low, high in (few.kendall_ci95, many.kendall_ci95)]
    assert width[1] < width[0]


def test_partial_correlation_sees_through_a_common_cause():
    cause = RNG.normal(size=400)
    x, y = cause + 0.5 * RNG.normal(size=400), cause + 0.5 * RNG.normal(size=400)
    assert stats.spearmanr(x, y)[0] > 0.6
    r, low, high = partial_correlation(x, y, [cause])
    assert low < 0 < high
    assert abs(r) < 0.15
    direct, low, _ = partial_correlation(x, y + x, [cause])
    assert direct > low > 0.3
    assert partial_correlation(2 * cause, y, [cause]) is None  # nothing is left of it


def test_gain_is_over_the_median_of_what_the_budget_admits():
    params, accuracy = np.arange(1, 11), np.arange(10.0)
    assert gain_at_budgets(params.astype(float), accuracy, params, [1.0]) == 4.5
    assert gain_at_budgets(params.astype(float), accuracy, params, [0.5]) == 2


def test_noise_share_is_what_other_seeds_change():
    means = RNG.normal(size=500)
    scores = means + 0.5 * RNG.normal(size=(4, 500))
    assert noise_share(np.tile(means, (3, 1))) == pytest.approx(0, abs=1e-9)
    assert noise_share(scores) == pytest.approx(0.25 / 1.25, abs=0.04)
    shifted = scores + np.array([[0.0], [5.0], [-9.0], [1.0]])  # what moves all alike moves no rank
    assert noise_share(shifted) == pytest.approx(noise_share(scores))


@pytest.fixture
def lines():
    space = SMALL_SPACES["autoformer"]
    archs = list(space.enumerate())[:5]
    return [{"space": "autoformer", "arch": space.to_json(a), "x_acc": 50.0 + i} for i, a in enumerate(archs)]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_ground_truth_is_read_with_its_columns_and_costs(tmp_path, lines):
    space = as_space(SMALL_SPACES["autoformer"])
    (truth,) = read_ground_truth(write(tmp_path / "t.jsonl", lines), space, 10)
    assert truth.columns == ("x_acc",)
    assert truth.accuracy("x_acc").tolist() == [50, 51, 52, 53, 54]
    assert truth.entries[0].params == space.cost(truth.entries[0].arch, 10).params
    lines[0]["params"] = "a lot"  # no number: arithmetic stands in
    (again,) = read_ground_truth(write(tmp_path / "t.jsonl", lines), space, 10)
    assert again.entries[0].params == truth.entries[0].params
    assert truth.within(None, truth.entries[0].params).sum() >= 1


def test_published_architectures_are_read_in_the_published_space(tmp_path, lines):
    """A file may hold several spaces; the configured one is used where it holds them all."""
    from tvt_ray.space import PiTSpace

    pit = PiTSpace()
    arch = pit.sample(random.Random(0))
    entry = {"space": "pit", "arch": pit.to_json(arch), "params_100_classes": 7, "x_acc": 1.0}
    truths = read_ground_truth(write(tmp_path / "t.jsonl", [*lines, entry]), as_space(SMALL_SPACES["autoformer"]), 10)
    assert [truth.space for truth in truths] == [SMALL_SPACES["autoformer"], pit]
    assert truths[1].entries[0].params == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": {"embed_dim": 7}}, "line 2"),
        ({"space": "deit"}, "unknown search space 'deit'; choices: autoformer, pit"),
        ({"space": ["pit"]}, "unknown search space"),
        ({"x_acc": None}, "x_acc is not in all"),
        ({"arch": 3}, "a line is an object"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, lines, change, message):
    lines[1] = {**lines[1], **change}
    with pytest.raises(UsageError, match=message):
        read_ground_truth(write(tmp_path / "t.jsonl", lines), as_space(SMALL_SPACES["autoformer"]), 10)


def test_a_repeated_architecture_is_refused(tmp_path, lines):
    with pytest.raises(UsageError, match=r"line 6 repeats the architecture of .*line 1"):
        read_ground_truth(write(tmp_path / "t.jsonl", [*lines, lines[0]]), as_space(SMALL_SPACES["autoformer"]), 10)


def test_the_published_table_is_read_whole(shared_data):
    from tvt_ray.space import AutoFormerSpace

    for name, count in (("autoformer", 100), ("pit", 50)):
        (truth,) = read_ground_truth(
            shared_data / "vit_bench_101" / f"{name}_dev.jsonl", as_space(AutoFormerSpace()), 10
        )
        assert len(truth.entries) == count
        assert {"cifar100_kd_acc", "flowers_kd_acc", "chaoyang_kd_acc"} <= set(truth.columns)
