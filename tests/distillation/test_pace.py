"""How CPUs are divided between loading and computing."""

import pytest
import torch

from tests.distillation.conftest import only, same
from tvt_ray.distillation.pace import Division, Pace, divide, measure


@pytest.mark.parametrize(
    ("cpus", "pace", "division"),
    [
        (1, Pace(1, 1), Division(0, 1)),
        (2, Pace(0.01, 1), Division(0, 2)),  # loading is little: both compute
        (2, Pace(1, 1), Division(1, 1)),
        (2, Pace(5, 1), Division(1, 1)),
        (8, Pace(1, 1), Division(3, 5)),
        (8, Pace(10, 1), Division(7, 1)),
        (8, Pace(1, 1, on_gpu=True), Division(1, 7)),
        (8, Pace(3, 1, on_gpu=True), Division(3, 5)),
    ],
)
def test_a_step_takes_as_little_as_it_can(cpus, pace, division):
    assert divide(cpus, pace) == division


def test_measuring_changes_nothing_that_is_learned(make):
    measured, other = make(), make()
    torch.manual_seed(3)
    pace = measure(measured)
    assert pace.load_s > 0
    assert pace.step_s > 0
    assert not pace.on_gpu
    assert torch.equal(torch.rand(1), torch.manual_seed(3) and torch.rand(1))
    for cohort in (measured, other):
        cohort.run_epoch()
    assert same(only(measured).guided.state_dict(), only(other).guided.state_dict())
