"""What the surrogate promises of data that are drawn from a model like its own, and of data that are not."""

import dataclasses

import numpy as np
import pytest

from tvt_ray.refining.features import make_table
from tvt_ray.refining.halving import MIN_MEASURED
from tvt_ray.refining.surrogate import Lesson, Observation, predict

NUM_ROWS = 120


class World:
    """Rows whose accuracy at the end is known: a score, a doubling of width that counts, and a residual."""

    def __init__(self, seed, per_width=4.0, slope=1.0, residual=0.3, noise=0.3, num_rows=NUM_ROWS):
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        shape = {name: self.rng.choice([3.0, 3.5, 4.0], num_rows) for name in ("width", "depth")}
        self.table = make_table(shape, {"reading": self.rng.standard_normal(num_rows)})
        self.prior = self.rng.standard_normal(num_rows)
        self.accuracy = 60 + slope * self.prior + per_width * (shape["width"] - 3.5)
        self.accuracy += residual * self.rng.standard_normal(num_rows)

    def train(self, rows, epochs=20, seed=0, level=0.0, gain=1.0, noise=None):
        """Observations of the rows."""
        noises = (self.noise if noise is None else noise) * self.rng.standard_normal(len(rows))
        values = level + 60 + gain * (self.accuracy[rows] - 60) + noises
        return [Observation(int(row), epochs, seed, float(value)) for row, value in zip(rows, values, strict=True)]

    def predict(self, observations, epochs=20):
        return predict(self.table, self.prior, observations, epochs)


def correlation(first, second):
    return np.corrcoef(first, second)[0, 1]


def test_fewer_than_eight_rows_stay_with_the_score():
    world = World(0)
    few = world.train(np.arange(MIN_MEASURED - 1))
    assert world.predict(few) is None
    assert world.predict([*few, *world.train(np.arange(3), seed=1)]) is None  # more trainings, no more rows
    assert world.predict([*few, *world.train(np.array([50]), epochs=30)]) is None  # beyond what is asked for
    assert world.predict(world.train(np.arange(MIN_MEASURED))).num_measured == MIN_MEASURED


def test_what_counts_is_found_and_said():
    world = World(1)
    prediction = world.predict(world.train(np.arange(40)))
    lessons = {lesson.name: lesson for lesson in prediction.lessons}
    assert lessons.keys() == {"width", "depth"}
    assert lessons["width"].low < 4 < lessons["width"].high
    assert lessons["width"].low > 2
    assert lessons["depth"].low < 0.5
    assert lessons["depth"].high > -0.5
    assert lessons["width"].sentence().startswith("this dataset rewards more width after 20 epochs: +")
    assert correlation(prediction.mean[40:], world.accuracy[40:]) > 0.95
    assert correlation(world.prior[40:], world.accuracy[40:]) < 0.75


@pytest.mark.parametrize(
    ("lesson", "text"),
    [
        (
            Lesson("width", "doubling", 0.71, 0.2, 1.1, 9),
            "this dataset rewards more width after 9 epochs: +0.7 points a doubling, ",
        ),
        (
            Lesson("depth_2", "doubling", -2.0, -3.0, -1.0, 9),
            "this dataset rewards less depth 2 after 9 epochs: -2.0 points a doubling",
        ),
        (
            Lesson("heads", "doubling", 0.1, -0.3, 0.5, 9),
            "whether this dataset rewards heads is open after 9 epochs: +0.1 points",
        ),
        (
            Lesson("has_conv_stem", "presence", 3.0, 2.0, 4.0, 9),
            "this dataset rewards a conv stem after 9 epochs: +3.0 points with it, ",
        ),
        (
            Lesson("has_conv_stem", "presence", -3.0, -4.0, -2.0, 9),
            "this dataset rewards no conv stem after 9 epochs: -3.0 points",
        ),
        (
            Lesson("has_mean_pool", "presence", 0.0, -1.0, 1.0, 9),
            "whether this dataset rewards a mean pool is open after 9 epochs: ",
        ),
    ],
)
def test_a_lesson_says_whether_it_is_one(lesson, text):
    assert lesson.sentence().startswith(text)
    assert lesson.sentence().endswith(f"90 % interval {lesson.low:+.1f} to {lesson.high:+.1f}")


def test_a_score_that_is_right_is_not_spoiled_by_eight_measurements():
    losses = []
    for seed in range(10):
        world = World(seed, per_width=0.0, residual=0.2)
        prediction = world.predict(world.train(np.arange(8)))
        before, after = (correlation(each[8:], world.accuracy[8:]) for each in (world.prior, prediction.mean))
        losses.append(before - after)
    assert np.mean(losses) < 0.03


def test_a_score_that_is_wrong_is_given_up():
    world = World(2, slope=-1.0)
    prediction = world.predict(world.train(np.arange(40)))
    assert correlation(world.prior[40:], world.accuracy[40:]) < -0.5
    assert correlation(prediction.mean[40:], world.accuracy[40:]) > 0.8


@pytest.mark.slow
def test_intervals_hold_what_they_promise():
    held, sure, right = [], [], []
    for seed in range(40):
        world = World(seed, per_width=2.0)
        prediction = world.predict(world.train(np.arange(20)))
        fresh = np.array([each.val_acc for each in world.train(np.arange(NUM_ROWS))])
        low, high = prediction.interval(0.9)
        held.append(((low <= fresh) & (fresh <= high))[20:].mean())
        for first, second in zip(range(20, 120, 2), range(21, 120, 2), strict=True):
            sure.append(prediction.sure_of(first, second))
            right.append(fresh[first] > fresh[second])
    assert 0.87 < np.mean(held) < 0.95
    sure, right = np.array(sure), np.array(right)
    likely = np.abs(sure - 0.8) < 0.1
    assert right[likely].mean() == pytest.approx(sure[likely].mean(), abs=0.06)


def test_noise_is_learned_from_repeats():
    def noise_of(noise, residual):
        world = World(3, noise=noise, residual=residual)
        observations = [each for seed in range(3) for each in world.train(np.arange(16), seed=seed)]
        return world.predict(observations)

    quiet, loud = noise_of(0.1, 0.7), noise_of(0.7, 0.1)
    assert quiet.noise < 0.25
    assert loud.noise > 0.4
    assert quiet.latent.residual > quiet.latent.noise
    assert loud.latent.residual < loud.latent.noise
    assert quiet.deviation[:16].mean() < quiet.deviation[16:].mean() / 2  # a row that was measured is known


def test_early_rungs_help_as_far_as_they_tell():
    world = World(4, slope=0.3)
    end = world.train(np.arange(10))
    early = world.train(np.arange(60), epochs=5, level=-25, gain=0.5, noise=0.1)
    noise = world.train(np.arange(60), epochs=5, level=-25, gain=0.0, noise=3.0)
    told = [correlation(world.predict([*end, *more]).mean[60:], world.accuracy[60:]) for more in ([], early, noise)]
    assert told[1] > 0.9
    assert told[1] >= told[0]
    assert told[2] > told[0] - 0.1


@pytest.mark.slow
def test_training_the_better_half_further_biases_nothing():
    """Successive halving: the rows that go on are those that did best, so the mean of their rung is no row's mean."""
    errors = []
    for seed in range(8):
        world = World(seed, noise=0.3)
        first = world.train(np.arange(32), epochs=5, level=-20, gain=0.6, noise=0.4)
        best = sorted(first, key=lambda each: -each.val_acc)[:12]
        last = world.train(np.array([each.index for each in best]), epochs=20)
        prediction = world.predict([*first, *last])
        errors.append((prediction.mean - world.accuracy)[32:].mean())
    assert abs(np.median(errors)) < 0.3  # the survivors are 1.5 points above the others


def test_a_training_that_failed_is_no_lesson():
    world = World(5)
    observations = world.train(np.arange(24))
    broken = [dataclasses.replace(each, val_acc=10.0) if each.index == 7 else each for each in observations]
    assert correlation(world.predict(broken).mean[24:], world.accuracy[24:]) > 0.85


def test_the_order_of_observations_and_of_rows_changes_nothing():
    world = World(6)
    observations = [*world.train(np.arange(20), epochs=5, level=-20), *world.train(np.arange(10))]
    prediction = world.predict(observations)
    assert (world.predict(observations[::-1]).mean == prediction.mean).all()
    turned = dataclasses.replace(world.table, values=world.table.values[::-1])
    moved = [dataclasses.replace(each, index=NUM_ROWS - 1 - each.index) for each in observations]
    again = predict(turned, world.prior[::-1], moved, 20)
    assert again.mean[::-1] == pytest.approx(prediction.mean, abs=1e-3)
    assert again.deviation[::-1] == pytest.approx(prediction.deviation, abs=1e-3)


def test_draws_are_of_what_is_foretold():
    world = World(7)
    prediction = world.predict(world.train(np.arange(30)))
    draws = prediction.draws(np.random.default_rng(0), 4000)
    assert draws.shape == (4000, NUM_ROWS)
    assert np.median(draws, axis=0) == pytest.approx(prediction.mean, abs=0.1)
    assert (np.percentile(draws, 84.1, axis=0) - np.percentile(draws, 15.9, axis=0)) / 2 == pytest.approx(
        prediction.deviation, rel=0.1
    )
    assert (draws[:5] == prediction.draws(np.random.default_rng(0), 4000)[:5]).all()


@pytest.mark.slow
def test_more_is_worth_measuring_until_the_choice_is_clear():
    world = World(8)
    rng = np.random.default_rng(0)
    little, much = (world.predict(world.train(np.arange(count))) for count in (8, NUM_ROWS))
    assert much.chance_that_more_changes(rng, count=300) < little.chance_that_more_changes(rng, count=300)
    best, worst = int(np.argmax(much.mean)), int(np.argmin(much.mean))
    assert much.chance_that_more_changes(rng, among=[best, worst]) == 0
    assert much.sure_of(best, worst) > 0.99
    assert much.sure_of(worst, best) == pytest.approx(1 - much.sure_of(best, worst))
    assert much.sure_of(best, best) == 0.5


@pytest.mark.parametrize("flat", ["accuracy", "prior", "features"])
def test_what_does_not_vary_is_no_trouble(flat):
    world = World(9)
    observations = world.train(np.arange(12))
    if flat == "accuracy":
        observations = [dataclasses.replace(each, val_acc=55.0) for each in observations]
    if flat == "prior":
        world.prior = np.zeros(NUM_ROWS)
    if flat == "features":
        world.table = make_table({"width": np.ones(NUM_ROWS)}, {})
    prediction = world.predict(observations)
    for values in (prediction.mean, prediction.deviation, *prediction.interval()):
        assert np.isfinite(values).all()
    if flat == "accuracy":
        assert prediction.mean == pytest.approx(np.full(NUM_ROWS, 55), abs=0.5)


def test_fifty_thousand_rows_take_seconds():
    world = World(10, num_rows=50_000)
    prediction = world.predict([*world.train(np.arange(60), epochs=5), *world.train(np.arange(30))])
    assert prediction.draws(np.random.default_rng(0), 20).shape == (20, 50_000)
    assert correlation(prediction.mean, world.accuracy) > 0.9
