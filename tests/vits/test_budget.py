import pytest
from pydantic import ValidationError

from tests.conftest import SMALL_SPACES
from tvt_ray.vits.budget import Budget, Limits, format_count, parse_count


def test_budget_counts_read_as_people_write_them():
    budget = Budget.model_validate({"max_params": "6M", "max_flops": "1.5G", "min_params": 300e3})
    assert budget == Budget(max_params=6_000_000, max_flops=1_500_000_000, min_params=300_000)
    assert budget.admits(6_000_000, 1_500_000_000)
    assert not budget.admits(6_000_001, 1)
    assert not budget.admits(299_999, 1)
    assert parse_count("12") == 12
    with pytest.raises(ValueError, match="k, M or G"):
        Budget.model_validate({"max_params": "six"})
    with pytest.raises(ValueError, match="above"):
        Budget.model_validate({"max_params": 1, "min_params": 2})


@pytest.mark.parametrize(
    ("limits", "admitted", "refused"),
    [
        ({"min_params": 5}, (5, 0), (4, 0)),
        ({"max_params": 5}, (5, 9), (6, 9)),
        ({"min_flops": 5}, (0, 5), (0, 4)),
        ({"max_flops": 5}, (9, 5), (9, 6)),
        ({"max_params": 0}, (0, 1), (1, 1)),  # a limit of 0 is a limit
    ],
)
def test_limits_are_inside(limits, admitted, refused):
    budget = Budget(**limits)
    assert budget.admits(*admitted)
    assert not budget.admits(*refused)


def test_no_budget_admits_everything():
    assert Budget().admits(0, 10**15)
    assert str(Budget()) == "no budget"
    assert str(Budget(max_params=6_000_000, min_flops=10)) == "max_params 6,000,000, min_flops 10"


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12"), (999, "999"), (12_345, "12.3k"), (12_345_678, "12.3M"), (1_500_000_000, "1.5G")]
)
def test_counts_are_written_as_people_read_them(count, text):
    assert format_count(count) == text
    assert parse_count(text) == pytest.approx(count, rel=0.01)


@pytest.mark.parametrize("limit", [0, -3, float("inf"), float("nan"), "fast"])
def test_a_latency_is_more_than_nothing(limit):
    with pytest.raises(ValidationError, match="max_latency_ms"):
        Budget(max_latency_ms=limit)


def test_a_latency_is_of_a_batch_and_a_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    budget = Budget(max_latency_ms=2.5, latency_batch_size=8, max_params=10, latency_profile="here.json")
    assert str(budget) == "max_params 10, max_latency_ms 2.5 for a batch of 8"
    assert budget.latency_profile == tmp_path / "here.json"
    assert str(Budget(latency_batch_size=8)) == "no budget"


SPACE = SMALL_SPACES["vit"]


def test_without_a_latency_limits_are_the_budget():
    for budget in (Budget(), Budget(max_params=6000), Budget(min_flops=400_000)):
        limits = Limits(SPACE, budget, 10)
        archs = list(SPACE.enumerate())
        assert [limits.admit(arch) for arch in archs] == [budget.admits(*SPACE.cost(arch, 10)) for arch in archs]


def test_a_latency_is_one_more_limit_its_end_included():
    limits = Limits(SPACE, Budget(max_latency_ms=2, max_params=9000), 10, lambda arch: float(arch.depth))
    for arch in SPACE.enumerate():
        assert limits.admit(arch) == (arch.depth <= 2 and SPACE.cost(arch, 10).params <= 9000)


def test_a_limit_on_latency_without_a_prediction_cannot_be_made():
    with pytest.raises(ValueError, match="max_latency_ms 2 needs something that predicts"):
        Limits(SPACE, Budget(max_latency_ms=2), 10)
