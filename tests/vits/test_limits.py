import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.vits.budget import Budget
from tvt_ray.vits.limits import Limits

SPACE = SMALL_SPACES["vit"]


def test_without_a_latency_limits_are_the_budget():
    for budget in (Budget(), Budget(max_params=6000), Budget(min_flops=400_000)):
        limits = Limits(SPACE, budget, 10)
        archs = list(SPACE.enumerate())
        assert [limits.admit(arch) for arch in archs] == [budget.admits(SPACE.cost(arch, 10)) for arch in archs]


def test_a_latency_is_one_more_limit_its_end_included():
    limits = Limits(SPACE, Budget(max_latency_ms=2, max_params=9000), 10, lambda arch: float(arch.depth))
    for arch in SPACE.enumerate():
        assert limits.admit(arch) == (arch.depth <= 2 and SPACE.cost(arch, 10).params <= 9000)


def test_a_limit_on_latency_without_a_prediction_cannot_be_made():
    with pytest.raises(ValueError, match="max_latency_ms 2 needs something that predicts"):
        Limits(SPACE, Budget(max_latency_ms=2), 10)
