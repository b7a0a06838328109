"""The surrogate on tables of trained accuracies."""

import dataclasses

import numpy as np
import pytest

from benchmarks import surrogates
from tests.conftest import SMALL_SPACES
from tvt_ray.errors import UsageError
from tvt_ray.judging.agreement import agreement
from tvt_ray.judging.study import RankRequest, RankResult, check_request, rank
from tvt_ray.judging.tables import MEASURED, LabelRequest, judge_labelled
from tvt_ray.judging.truth import GroundTruth, LearnsFrom, Scored, Trained
from tvt_ray.refining.features import make_table

SPACE = SMALL_SPACES["pit"]
ARCHS = list(SPACE.enumerate())[:24]
LABELS = LabelRequest(num_labels=10, num_draws=4)


@pytest.fixture
def scored():
    """A score that says nothing; the first column is the ratio, which a feature is, and the second what is scored."""
    rng = np.random.default_rng(0)
    prior = rng.permutation(len(ARCHS)).astype(float)
    shape = {name: np.array([SPACE.features(arch)[name] for arch in ARCHS]) for name in ("heads_3", "mlp_ratio")}
    ratio_acc = 50 + 10 * shape["mlp_ratio"] + 0.01 * rng.standard_normal(len(ARCHS))
    entries = [
        Trained(
            arch,
            SPACE.arch_id(arch),
            100 + i,
            100 + i,
            SPACE.shape(arch),
            {"ratio_acc": ratio_acc[i], "score_acc": prior[i]},
        )
        for i, arch in enumerate(ARCHS)
    ]
    learns_from = LearnsFrom("capacity", prior, make_table(shape, {}))
    return Scored(GroundTruth(SPACE, tuple(entries)), {"params": prior[None]}, learns_from)


def test_labels_tell_what_the_score_does_not(scored):
    measured, held_out = judge_labelled([scored], None, LABELS)
    assert [(each.column, each.proxy, each.n) for each in measured] == [
        ("ratio_acc", MEASURED, 14),
        ("score_acc", MEASURED, 14),
    ]
    assert [each.proxy for each in held_out] == ["capacity", "capacity"]
    by_ratio, by_score = measured
    assert by_ratio.kendall > 0.4 > held_out[0].kendall
    assert held_out[1].kendall == pytest.approx(1)
    assert by_score.kendall > 0.9
    assert by_ratio.kendall_ci95[0] <= by_ratio.kendall <= by_ratio.kendall_ci95[1]


def test_the_score_is_judged_on_the_rows_that_have_no_label(scored):
    labels = LabelRequest(num_labels=10, num_draws=1, seed=3)
    _, (held_out,) = judge_labelled([scored], ("ratio_acc",), labels)
    left = np.sort(np.random.default_rng([3, 0]).permutation(len(ARCHS))[10:])
    expected = agreement(scored.learns_from.prior[left], scored.truth.accuracy("ratio_acc")[left])
    assert (held_out.kendall, held_out.top1_regret) == (expected.kendall, expected.top1_regret)


def test_a_band_is_labelled_by_itself(scored):
    measured, held_out = judge_labelled([scored], ("ratio_acc",), LABELS, 100, 117)
    assert [each.n for each in (*measured, *held_out)] == [8, 8]
    with pytest.raises(UsageError, match="at most 9 of the 12 of pit; got 10"):
        judge_labelled([scored], None, LABELS, 100, 111)


def test_a_column_that_never_varies_has_no_tau(scored):
    flat = [dataclasses.replace(each, accuracies={"flat_acc": 7.0}) for each in scored.truth.entries]
    truth = GroundTruth(SPACE, tuple(flat))
    (measured,), _ = judge_labelled([dataclasses.replace(scored, truth=truth)], None, LABELS)
    assert (measured.kendall, measured.kendall_ci95, measured.top1_regret) == (None, None, 0)


@pytest.mark.parametrize("num", [-1, 1, 7])
def test_too_few_labels_are_refused(num):
    with pytest.raises(UsageError, match=f"--labels is 0, or at least 8; got {num}"):
        check_request(RankRequest((), (), labels=LabelRequest(num)))


def test_no_draws_are_refused():
    with pytest.raises(UsageError, match="--draws is at least 1; got 0"):
        check_request(RankRequest((), (), labels=LabelRequest(8, 0)))
    check_request(RankRequest((), ()))


def test_rank_adds_the_surrogate_where_labels_are_asked_for_and_is_as_before_without(config, scored):
    plain = rank(config, RankRequest((), ("params",)), [scored])
    assert type(plain) is RankResult
    labelled = rank(config, RankRequest((), ("params",), labels=LABELS), [scored])
    assert labelled.columns[: len(plain.columns)] == plain.columns
    assert [each.proxy for each in labelled.columns] == ["params", "params", MEASURED, MEASURED]
    assert (labelled.num_labels, labelled.num_draws, len(labelled.held_out)) == (10, 4, 2)


def test_plain_models_are_judged_on_the_same_draws(scored):
    found = surrogates.judge([(scored, "ratio_acc")], 10, 3, seed=0)
    assert list(found) == ["surrogate", "ridge", "Gaussian process", "score alone"]
    draws = LabelRequest(num_labels=10, num_draws=3, seed=0)
    (measured,), (held_out,) = judge_labelled([scored], ("ratio_acc",), draws)
    for name, expected in (("surrogate", measured), ("score alone", held_out)):
        assert found[name]["kendall"] == pytest.approx(expected.kendall)
        assert found[name]["equal"] == pytest.approx(expected.kendall_equal_params)
        assert found[name]["regret"] == pytest.approx(expected.top1_regret)
        assert found[name]["by_column"] == {"pit ratio_acc": pytest.approx(expected.kendall)}
    ahead = found["score alone"]["surrogate_ahead_kendall"]
    assert ahead["mean"] == pytest.approx(measured.kendall - held_out.kendall)
    assert ahead["ci95"][0] <= ahead["mean"] <= ahead["ci95"][1]
    for name in ("ridge", "Gaussian process"):
        assert found[name]["kendall"] > held_out.kendall + 0.3  # labels say what the score does not
