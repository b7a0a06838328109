import json
import random

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.errors import RunError, UsageError
from tvt_ray.quality.evaluation import Evaluation, Mistake, match_classes, probabilities_of
from tvt_ray.quality.statistics import quality_of
from tvt_ray.vits import build_student


def test_json_has_the_figures_beside_what_they_are_of_with_four_digits():
    quality = quality_of(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), ("a", "b"))
    mistakes = (Mistake("a/1.png", "a", "b", 80.00004),)
    found = Evaluation("s", "digits", "f", "test", quality, mistakes, ("told",), "p.html", "f.json").to_json()
    assert json.loads(json.dumps(found)) == found
    contract = "student dataset split num_images top1 top1_ci95 balanced_accuracy majority ece nll classes confusion"
    assert found.keys() >= {*contract.split(), "page", "file", "brier", "num_bins", "reliability", "notes"}
    assert (found["student"], found["split"], found["num_images"], found["num_bins"]) == ("s", "test", 3, 15)
    assert (found["top1"], found["balanced_accuracy"], found["majority"]) == (66.6667, 75.0, 66.6667)
    assert found["classes"][0].keys() == {"name", "support", "recall", "recall_ci95", "precision", "f1"}
    assert found["confusion"] == [[1, 1], [0, 1]]
    assert found["mistakes"] == [{"image": "a/1.png", "truth": "a", "predicted": "b", "confidence": 80.0}]


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


SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture
def student():
    return build_student(SPACE, SPACE.sample(random.Random(0)), 10, seed=0)


def test_probabilities_are_the_softmax_of_each_image_in_order(student, digits):
    split, seen = digits.test.take(np.arange(300)), []
    found = probabilities_of(student, split, 32, seen.append)
    assert (found.shape, found.dtype, seen) == ((300, 10), np.float64, [256, 44])
    assert found.sum(1) == pytest.approx(np.ones(300), abs=1e-12)
    alone = probabilities_of(student, split.take(np.array([299])), 32)
    assert found[299] == pytest.approx(alone[0], abs=1e-6)


def test_a_student_whose_weights_are_broken_is_one_line(student, digits):
    with torch.no_grad():
        student.head.bias[0] = torch.nan
    with pytest.raises(RunError, match="not finite numbers"):
        probabilities_of(student, digits.test.take(np.arange(3)), 32)
