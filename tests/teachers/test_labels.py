"""Labels that look wrong, and what more images would be worth: on features whose truth is known."""

import numpy as np
import pytest

from tvt_ray.teachers.labels import Suspect, extrapolated, growth, out_of_fold, suspects

pytestmark = pytest.mark.slow  # a network of timm's, or many fits


def clusters(each=40, num_classes=4, channels=6, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = 4 * rng.normal(size=(num_classes, channels))
    labels = np.repeat(np.arange(num_classes), each)
    return (centres[labels] + spread * rng.normal(size=(len(labels), channels))).astype(np.float32), labels


def test_labels_that_were_changed_are_found_and_no_others():
    features, labels = clusters()
    wrong = np.random.default_rng(1).choice(len(labels), 8, replace=False)
    told = labels.copy()
    told[wrong] = (told[wrong] + 1) % 4
    found = suspects(told, out_of_fold(features, told, 0.1, 4))
    assert {each.place for each in found} == set(wrong.tolist())
    assert all(each.likelier == labels[each.place] for each in found)
    margins = [each.margin for each in found]
    assert margins == sorted(margins, reverse=True)
    assert suspects(labels, out_of_fold(features, labels, 0.1, 4)) == []


def test_a_label_looks_wrong_by_the_rule_of_confident_learning():
    labels = np.array([0, 0, 1, 1])
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])  # means of their own: 0.55 and 0.65
    assert suspects(labels, shares) == [Suspect(1, 0, 1, pytest.approx(0.6))]
    shares[1] = [0.4, 0.6]  # likelier to be of the other class, but less than its images are
    assert suspects(labels, shares) == []


def test_the_error_falls_by_as_much_with_each_doubling():
    assert extrapolated([0.2, 0.6, 0.8]) == pytest.approx(0.9)
    assert extrapolated([0.6, 0.8, 0.9]) == pytest.approx(0.95)
    assert extrapolated([0.9, 0.8, 0.7]) == pytest.approx(0.7)  # it never rises
    assert extrapolated([1.0, 1.0, 1.0]) > 0.999


def test_more_images_are_worth_something_where_they_are_few():
    features, labels = clusters(each=12, channels=60, spread=14.0)
    found = growth(features, labels, 0.01, 4)
    assert found.quarter < found.all < found.twice <= 100
    low, high = found.twice_interval
    assert low <= found.twice <= high
    assert found == growth(features, labels, 0.01, 4)
    easy = growth(*clusters(each=40), 0.1, 4)
    assert easy.all == 100
    assert growth(features[::4], labels[::4], 0.01, 4) is None  # three images of a class
