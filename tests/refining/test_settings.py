"""How many students are measured, and how."""

import pytest
from pydantic import ValidationError

from tvt_ray.refining.settings import RefineSettings


def test_rungs_are_a_third_and_two_thirds_of_a_training_unless_they_are_given():
    assert RefineSettings().rungs_of(40) == (13, 26)
    assert RefineSettings().rungs_of(300) == (100, 200)
    assert RefineSettings().rungs_of(5) == (1, 3)
    assert RefineSettings().rungs_of(1) == (1,)
    assert RefineSettings(rungs=(2, 5)).rungs_of(5) == (2, 5)


def test_a_rung_beyond_the_training_is_refused():
    with pytest.raises(ValueError, match=r"refine\.rungs ends at 6 epochs, distill\.epochs is 5"):
        RefineSettings(rungs=(2, 6)).rungs_of(5)


@pytest.mark.parametrize("rungs", [(), (3, 3), (4, 2), (0, 2)], ids=str)
def test_rungs_rise(rungs):
    with pytest.raises(ValidationError):
        RefineSettings(rungs=rungs)
