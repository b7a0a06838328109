import numpy as np
import pytest

from tvt_ray.errors import UsageError
from tvt_ray.quality.classes import match_classes


def test_the_same_classes_need_no_word():
    found = match_classes(("ants", "bees"), ("ants", "bees"))
    assert (found.places, found.notes) == ((0, 1), ())


def test_another_order_is_matched_by_name_and_said():
    found = match_classes(("ants", "bees", "wasps"), ("wasps", "ants", "bees"))
    assert found.places == (2, 0, 1)
    assert found.notes == ("the dataset has the classes in another order: matched by name",)
    assert found.relabel(np.array([0, 0, 1, 2])).tolist() == [2, 2, 0, 1]


def test_some_of_the_classes_are_enough_and_said():
    found = match_classes(("ants", "bees", "flies", "wasps"), ("wasps", "ants"))
    assert found.places == (3, 0)
    assert found.notes == (
        "the dataset has 2 of the student's 4 classes, not bees, flies: whatever is taken for one of those is wrong",
    )


def test_a_class_that_the_student_does_not_know_is_refused_with_both_lists():
    with pytest.raises(UsageError) as error:
        match_classes(("ants", "bees"), ("ants", "Bees"))
    assert str(error.value) == (
        "a student is evaluated on classes that it knows, and it does not know Bees: "
        "it knows ants, bees; the dataset has ants, Bees"
    )


def test_as_many_numbers_are_taken_in_their_order_and_that_is_said():
    """As folders they come in the order of text: 10 before 9."""
    found = match_classes(("ants", "bees", "wasps"), ("10", "11", "9"))
    assert found.places == (1, 2, 0)
    assert found.notes == (
        "the dataset has numbers and no class names: they are taken in the student's order, "
        "9 is ants, 10 is bees, 11 is wasps",
    )


@pytest.mark.parametrize(
    ("known", "found"),
    [(("ants", "bees", "wasps"), ("0", "1")), (("0", "1"), ("1", "2")), (("ants", "7"), ("0", "1"))],
    ids=["fewer numbers", "other numbers", "a name that is a number"],
)
def test_numbers_that_could_mean_something_else_are_refused(known, found):
    with pytest.raises(UsageError, match="does not know"):
        match_classes(known, found)
