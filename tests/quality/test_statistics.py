"""Every figure by hand: five images of three classes, and the corners."""

import math

import numpy as np
import pytest

from tvt_ray.quality.statistics import ClassQuality, confident_mistakes, confusions, quality_of, wilson

NAMES = ("a", "b", "c")
LABELS = np.array([0, 0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]])


def sure(*predicted):
    """Probabilities of who is nearly certain of each."""
    return np.where(np.eye(3)[list(predicted)] == 1, 0.98, 0.01)


def test_wilsons_interval_is_the_textbooks():
    """8 of 10: centre (0.8 + z²/20) / (1 + z²/10), half-width z sqrt(0.016 + z²/400) / (1 + z²/10), z² = 3.8415."""
    assert wilson(8, 10) == pytest.approx((49.016, 94.332), abs=1e-3)
    assert wilson(0, 10) == pytest.approx((0, 100 * 3.841459 / 13.841459), abs=1e-4)
    low, high = wilson(10, 10)
    assert (low, high) == pytest.approx((100 * 10 / 13.841459, 100), abs=1e-4)


def test_accuracy_stands_beside_the_majority():
    found = quality_of(LABELS, PROBABILITIES, NAMES)
    assert found.num_images == 5
    assert found.top1 == pytest.approx(60)
    assert found.top1_ci95 == wilson(3, 5)
    assert (found.majority, found.majority_class) == (pytest.approx(60), "a")
    assert found.balanced_accuracy == pytest.approx((200 / 3 + 50) / 2)  # of a and b: c has no images


def test_each_class_has_recall_precision_and_f1():
    a, b, c = quality_of(LABELS, PROBABILITIES, NAMES).classes
    assert (a.name, a.support, a.recall_ci95) == ("a", 3, wilson(2, 3))
    assert (a.recall, a.precision, a.f1) == pytest.approx((200 / 3, 100, 80))
    assert (b.support, b.recall, b.precision, b.f1) == pytest.approx((2, 50, 50, 50))
    assert c == ClassQuality("c", 0, None, None, 0.0, 0.0)  # without images, but one of b was taken for it


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_never_predicted_has_no_precision():
    _, b, c = quality_of(np.array([0, 1]), sure(0, 0), NAMES).classes
    assert b == ClassQuality("b", 1, 0.0, wilson(0, 1), None, 0.0)
    assert c == ClassQuality("c", 0, None, None, None, None)


def test_rows_of_the_confusion_are_true_classes():
    assert quality_of(LABELS, PROBABILITIES, NAMES).confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 0))


def test_likelihood_and_brier_score_are_of_the_true_class():
    found = quality_of(LABELS, PROBABILITIES, NAMES)
    assert found.nll == pytest.approx(-sum(map(math.log, (0.9, 0.6, 0.2, 0.5, 0.3))) / 5)
    assert found.brier == pytest.approx((0.015 + 0.26 + 1.14 + 0.42 + 0.74) / 5)


def test_the_calibration_error_is_of_bins_whose_upper_edge_belongs_to_them():
    """Two bins: 0.5 and 0.4, one of them right; 0.9, 0.6 and 0.7, two of them right."""
    found = quality_of(LABELS, PROBABILITIES, NAMES, num_bins=2)
    low, high = found.reliability
    assert (low.low, low.high, high.low, high.high) == (0, 50, 50, 100)
    assert (low.num_images, low.confidence, low.accuracy) == pytest.approx((2, 45, 50))
    assert (high.num_images, high.confidence, high.accuracy) == pytest.approx((3, 220 / 3, 200 / 3))
    assert found.ece == pytest.approx(2 / 5 * 5 + 3 / 5 * 20 / 3)
    assert found.mean_confidence == pytest.approx(62)


def test_there_are_fifteen_bins_and_empty_ones_say_nothing():
    bins = quality_of(LABELS, PROBABILITIES, NAMES).reliability
    assert len(bins) == 15
    assert sum(each.num_images for each in bins) == 5
    assert (bins[0].num_images, bins[0].confidence, bins[0].accuracy) == (0, None, None)


def test_who_is_always_right_and_certain_is_calibrated():
    found = quality_of(np.array([0, 1, 2]), np.eye(3), NAMES)
    assert (found.top1, found.ece, found.nll, found.brier) == (100, 0, 0, 0)


def test_a_probability_of_zero_has_a_finite_likelihood():
    assert 700 < quality_of(np.array([1]), np.array([[1.0, 0, 0]]), NAMES).nll < 710


@pytest.mark.parametrize(("right", "better"), [(60, True), (40, None), (20, False)])
def test_better_than_the_majority_is_what_its_interval_does_not_hold(right, better):
    """Of 100 images 40 are of the majority."""
    labels = np.repeat([0, 1, 2], [40, 30, 30])
    predicted = [label if place < right else (label + 1) % 3 for place, label in enumerate(labels)]
    assert quality_of(labels, sure(*predicted), NAMES).beats_majority is better


def test_the_most_confident_mistakes_come_first():
    assert confident_mistakes(LABELS, PROBABILITIES, 5) == [2, 4]
    assert confident_mistakes(LABELS, PROBABILITIES, 1) == [2]
    assert confident_mistakes(np.array([0, 1]), sure(0, 1), 5) == []


def test_the_most_frequent_confusions_come_first():
    found = quality_of(np.array([0, 0, 0, 1, 2]), sure(1, 1, 0, 2, 2), NAMES)
    assert confusions(found, 9) == [("a", "b", 2), ("b", "c", 1)]
    assert confusions(found, 1) == [("a", "b", 2)]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"here \(5, 2\); got \(5, 3\)"):
        quality_of(LABELS, PROBABILITIES, ("a", "b"))
    with pytest.raises(ValueError, match="one image at least"):
        quality_of(LABELS[:0], PROBABILITIES[:0], NAMES)
