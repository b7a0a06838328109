"""How CPUs are divided between loading and computing."""

import pytest

from tvt_ray.training.pace import Division, Pace, divide, scaling_of


@pytest.mark.parametrize(
    ("cpus", "pace", "division"),
    [
        (1, Pace(1, 1), Division(0, 1)),
        (2, Pace(0.01, 1), Division(0, 2)),  # loading is little: both compute
        (2, Pace(1, 1), Division(1, 1)),
        (2, Pace(5, 1), Division(1, 1)),
        (8, Pace(1, 1), Division(3, 5)),
        (8, Pace(10, 1), Division(7, 1)),
        (2, Pace(0.1, 1, scaling=0.0), Division(1, 1)),  # a second thread would compute nothing
        (8, Pace(1, 1, on_gpu=True), Division(1, 7)),
        (8, Pace(3, 1, on_gpu=True), Division(3, 5)),
    ],
)
def test_a_step_takes_as_little_as_it_can(cpus, pace, division):
    assert divide(cpus, pace) == division


def test_scaling_is_of_what_was_measured():
    assert scaling_of(1.0, 0.5, 2) == pytest.approx(1)
    assert scaling_of(1.0, 1.0, 2) == 0
    assert scaling_of(1.0, 1.4, 2) == 0  # more threads were slower
    assert scaling_of(8.0, 1.0, 4) == 1  # more than can be
    assert scaling_of(1.0, 1.0, 1) == 0
