"""Which measurements are rungs, and the scale of accuracies."""

import numpy as np
import pytest

from tvt_ray.refining.curves import HEADROOMS, Observation, arrange, make_scale


def test_rungs_are_where_trainings_end():
    """Two trainings that are measured after each epoch, of which one is stopped after three."""
    long = [Observation(0, epochs, 0, 10.0 * epochs) for epochs in range(1, 7)]
    short = [Observation(1, epochs, 0, 9.0 * epochs) for epochs in range(1, 4)]
    curves = arrange([*long, *short], epochs=6)
    assert curves.accuracy.tolist() == [30, 60, 27]
    assert curves.rungs.tolist() == [0, 1, 0]
    assert (curves.num_rungs, curves.measured.tolist(), curves.trainings.tolist()) == (2, [0, 1], [0, 0, 1])
    assert arrange([*long, *short], epochs=4).accuracy.tolist() == [30, 40, 27]


def test_of_many_rungs_six_are_kept_the_last_among_them():
    curves = arrange([Observation(i, 1 + i, 0, float(i)) for i in range(20)], epochs=100)
    assert curves.num_rungs == 6
    assert curves.rows.max() == 19


@pytest.mark.parametrize("headroom", HEADROOMS)
def test_a_scale_keeps_order_and_leads_back(headroom):
    accuracy = np.array([20.0, 55.0, 70.0, 71.0, 71.0])
    curves = arrange([Observation(i, 5, 0, value) for i, value in enumerate(accuracy)], epochs=5)
    scale = make_scale(curves, headroom)
    latent = scale.latent(curves.accuracy, curves.rungs)
    assert (latent.mean(), latent.std()) == (pytest.approx(0), pytest.approx(1))
    assert (np.argsort(latent, kind="stable") == np.argsort(accuracy, kind="stable")).all()
    assert scale.percent(latent) == pytest.approx(accuracy)
    slope = (scale.percent(np.array([0.101])) - scale.percent(np.array([0.099]))) / 0.002
    assert scale.points_per_latent(0.1) == pytest.approx(slope[0], rel=1e-4)
    assert scale.percent(np.array([-1e9, 1e9])).tolist() == pytest.approx([0, min(100, scale.ceilings[0])])


def test_equal_accuracies_have_a_scale():
    curves = arrange([Observation(i, 5, 0, 40.0) for i in range(9)], epochs=5)
    scale = make_scale(curves, 1.0)
    assert scale.latent(curves.accuracy, curves.rungs).tolist() == [0] * 9
    assert scale.percent(np.array([1.0]))[0] == pytest.approx(40, abs=0.2)
