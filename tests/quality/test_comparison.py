"""Whether a difference is more than luck, by cases computed by hand."""

import numpy as np
import pytest
from scipy import stats

from tvt_ray.quality.comparison import estimate, rival, verdict
from tvt_ray.quality.statistics import majority_of


def hits(*shares, num_images=100):
    """A seed for each share: that many of the images right, the first ones."""
    return np.stack([np.arange(num_images) < share for share in shares])


def test_one_seeds_interval_is_that_of_the_images():
    values = hits(80).astype(float)
    found = estimate(values)
    error = np.sqrt(0.8 * 0.2 / 99)  # of the mean of 100, by the unbiased variance
    reach = 100 * stats.t.ppf(0.975, 99) * error
    assert found.value == pytest.approx(80)
    assert found.ci95 == pytest.approx((80 - reach, 80 + reach))


def test_seeds_that_differ_widen_it():
    """Two seeds: images' means have variance a, seeds' means variance b; Welch's degrees of freedom."""
    values = hits(70, 90).astype(float)
    images, seeds = values.mean(0).var(ddof=1) / 100, np.var([0.7, 0.9], ddof=1) / 2
    freedom = (images + seeds) ** 2 / (images**2 / 99 + seeds**2 / 1)
    reach = 100 * stats.t.ppf(0.975, freedom) * np.sqrt(images + seeds)
    found = estimate(values)
    assert found.value == pytest.approx(80)
    assert found.ci95 == pytest.approx((80 - reach, 80 + reach))


def test_without_any_difference_there_is_no_interval():
    found = estimate(np.zeros((3, 50)))
    assert (found.value, found.ci95, found.clear) == (0.0, (0.0, 0.0), False)


def test_the_same_images_are_compared():
    """Two that are right for the same images differ by nothing, and by something sure where one knows more of them."""
    same = rival("b", "b", "b", 1, "p", hits(60, 62), hits(60, 62))
    assert (same.ahead.value, same.ahead.clear) == (0.0, False)
    more = rival("b", "b", "b", 1, "p", hits(50, 51, 52), hits(60, 61, 62))
    assert more.ahead.value == pytest.approx(10)
    assert more.ahead.clear
    assert more.test_accs == pytest.approx((50, 51, 52))


def test_an_accuracy_is_a_share_and_a_difference_is_none():
    best = rival("b", "b", "b", 1, "p", hits(99, 100), hits(98, 100))
    assert best.accuracy.ci95[1] == 100 < estimate(hits(99, 100).astype(float)).ci95[1]
    worst = rival("b", "b", "b", 1, "p", hits(0, 1), hits(0, 1))
    assert worst.accuracy.ci95[0] == 0
    assert best.ahead.ci95[0] < 0


def test_intervals_hold_what_they_promise():
    """Of two equally good ones, a difference is called clear in at most one case in twenty or so."""
    rng = np.random.default_rng(0)
    clear = 0
    for _ in range(400):
        a, b = ((rng.random(150) + rng.normal(0, 0.03, (3, 1)))[...] < 0.7 for _ in range(2))
        clear += rival("b", "b", "b", 1, "p", a, b).ahead.clear
    assert clear / 400 < 0.07


def compared(*others, seeds=(80, 81, 79)):
    student = hits(*seeds)
    first = rival("student", "the student", "s", 1, "p", student)
    rest = [rival(name, name, name, 1, "p", hits(*shares), student) for name, shares in others]
    return verdict([first, *rest], len(seeds), 100)


def test_a_verdict_says_who_is_above():
    said = compared(("the small one", (50, 52, 51)), ("the even one", (80, 79, 81)))
    assert said[0] == "The student names 80.0 % of 100 images right (the mean of 3 seeds)."
    assert said[1].startswith("Clearly above the small one, by 29.0 points (95 %: +")
    assert said[2].startswith("No clear difference from the even one: +0.0 points")
    assert len(said) == 3


def test_a_verdict_says_where_the_search_lost():
    said = compared(("the large one", (97, 96, 98)))
    assert said[-1].startswith("So the search lost here to the large one: better students are in")


def test_a_verdict_says_where_nothing_was_shown():
    said = compared(("the even one", (81, 79, 80)))
    assert said[-1] == "So nothing here says that one of them is better than another."


def test_a_verdict_of_one_seed_says_so():
    said = compared(("the even one", (80,)), seeds=(80,))
    assert "(one seed)" in said[0]
    assert said[-1].endswith("--seeds 3 says it.")


def test_the_majority_is_of_these_images():
    assert majority_of(np.array([1, 1, 0, 2]), ["a", "b", "c"]) == (50.0, "b")


def test_nothing_is_estimated_of_nothing():
    with pytest.raises(ValueError, match="one image at least"):
        estimate(np.zeros((1, 0)))
