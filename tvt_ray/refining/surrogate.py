"""The surrogate: from a few short trainings to the accuracy of every row, centred on a score that needed none.

A Bayesian linear model of scores and features (evidence.py), on a scale of accuracies that is learned (curves.py).
docs/surrogate.md says why, and what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import linalg, special
from threadpoolctl import threadpool_limits

from tvt_ray.refining.curves import (
    HEADROOMS,
    Curves,
    Indices,
    Observation,
    Scale,
    arrange,
    make_scale,
)
from tvt_ray.refining.evidence import TAILS, Posterior, find_links, infer, make_design
from tvt_ray.refining.features import FLAG, PRESENCE, FeatureTable, Floats, normal_scores
from tvt_ray.refining.halving import MIN_MEASURED

LESSON_LEVEL = 0.9
CHUNK = 100  # draws at a time where there may be many rows

__all__ = ["Lesson", "Observation", "Prediction", "predict"]


@dataclass(frozen=True)
class Lesson:
    """What one more step of a feature is worth among rows that are otherwise shaped alike."""

    name: str
    unit: str  # doubling, or presence of what an architecture has or has not
    points: float  # percentage points a step
    low: float  # a 90 % interval
    high: float
    epochs: int  # of the trainings that taught it: after longer ones it may be otherwise

    def sentence(self) -> str:
        """What it says of the dataset at this length of training, in words and numbers."""
        has, name = self.unit == PRESENCE, self.name.removeprefix(FLAG).replace("_", " ")
        more, less = ("a", "no") if has else ("more", "less")
        if self.low > 0 or self.high < 0:
            verdict = f"this dataset rewards {more if self.points > 0 else less} {name}"
        else:
            verdict = f"whether this dataset rewards {'a ' if has else ''}{name} is open"
        step = "with it" if has else f"a {self.unit}"
        verdict = f"{verdict} after {self.epochs} epochs"
        return f"{verdict}: {self.points:+.1f} points {step}, 90 % interval {self.low:+.1f} to {self.high:+.1f}"


@dataclass(frozen=True)
class Latent:
    """What is known of all rows on the scale that is linear: a joint normal distribution."""

    design: Floats  # (n, b): of the weights that all rows share
    measured: Indices  # (a,) rows that have a residual of their own among the weights
    mean: Floats  # (b + a,) of the weights
    covariance: Floats  # (b + a, b + a)
    residual: float  # standard deviation of a row that was not measured around what the weights give
    noise: float  # of a training around its row
    scale: Scale

    def means(self) -> Floats:
        """What is expected of all rows: (n,)."""
        num_shared = self.design.shape[1]
        means = self.design @ self.mean[:num_shared]
        means[self.measured] += self.mean[num_shared:]
        return np.asarray(means)

    def deviations(self) -> Floats:
        """Standard deviations of all rows, without the noise of a training: (n,)."""
        num_shared = self.design.shape[1]
        shared = self.covariance[:num_shared, :num_shared]
        variances: Floats = ((self.design @ shared) * self.design).sum(1) + self.residual**2
        own = self.weights_of(self.measured)
        variances[self.measured] = ((own @ self.covariance) * own).sum(1)
        return np.asarray(np.sqrt(np.maximum(variances, 0)))

    def weights_of(self, rows: Indices) -> Floats:
        """What each weight counts for rows (k,): (k, b + a)."""
        return np.hstack([self.design[rows], (rows[:, None] == self.measured).astype(np.float64)])

    def draws(self, rng: np.random.Generator, count: int) -> Floats:
        """Joint draws of all rows: (count, n)."""
        num_shared = self.design.shape[1]
        values, vectors = linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        weights = self.mean + rng.standard_normal((count, len(self.mean))) @ root.T
        residuals = self.residual * rng.standard_normal((count, len(self.design)))
        residuals[:, self.measured] = weights[:, num_shared:]
        return np.asarray(weights[:, :num_shared] @ self.design.T + residuals)


@dataclass(frozen=True)
class Prediction:
    """Accuracy of all n rows in percent after `epochs` epochs.

    `mean`, `deviation` and `draws` are of a row: of its trainings in the mean. `interval` and `sure_of` are of single
    trainings, which differ by their noise as well.
    Where nothing was measured after that many epochs, the latest rung stands for them.
    """

    epochs: int
    num_measured: int  # rows
    mean: Floats  # (n,) as likely too low as too high
    deviation: Floats  # (n,) half the width of what holds 68 %
    noise: float  # standard deviation, in points, of a training around its row, at the median row
    lessons: tuple[Lesson, ...]  # of each feature of the shape
    latent: Latent = field(repr=False)

    def interval(self, level: float = 0.9) -> tuple[Floats, Floats]:
        """What holds the accuracy of one more training of each row with this probability: low and high, (n,) each."""
        known, noise = special.ndtri((1 + level) / 2), special.stdtrit(TAILS, (1 + level) / 2)
        wide = np.hypot(known * self.latent.deviations(), noise * self.latent.noise)
        means, scale = self.latent.means(), self.latent.scale
        return scale.percent(means - wide), scale.percent(means + wide)

    def draws(self, rng: np.random.Generator, count: int) -> Floats:
        """Joint draws of all rows' accuracies: (count, n)."""
        return self.latent.scale.percent(self.latent.draws(rng, count))

    def sure_of(self, first: int, second: int) -> float:
        """The probability that a training of row `first` ends above one of row `second`."""
        if first == second:
            return 0.5
        pair = np.array([first, second])
        weights = self.latent.weights_of(pair)
        difference = weights[0] - weights[1]
        unmeasured = 2 - int(np.isin(pair, self.latent.measured).sum())
        variance = difference @ self.latent.covariance @ difference + unmeasured * self.latent.residual**2
        variance += 2 * self.latent.noise**2
        return float(special.ndtr(difference @ self.latent.mean / np.sqrt(max(variance, 1e-12))))

    def chance_that_more_changes(
        self, rng: np.random.Generator, count: int = 1000, margin: float = 0.1, among: Sequence[int] | None = None
    ) -> float:
        """How probable it is that another row is better than the one of the highest mean by `margin` points or more.

        Where it is small, measuring more would not change the choice. `among`: the rows that can be chosen (None: all).
        """
        rows = np.arange(len(self.mean)) if among is None else np.asarray(among)
        chosen = int(np.argmax(self.mean[rows]))
        gains = []
        for start in range(0, count, CHUNK):
            drawn = self.draws(rng, min(CHUNK, count - start))[:, rows]
            gains.append(drawn.max(1) - drawn[:, chosen])
        return float(np.mean(np.concatenate(gains) >= margin))

    def chances_of_being_near(self, rng: np.random.Generator, row: int, points: float, count: int = 1000) -> Floats:
        """How probable it is that each row is at most `points` worse than row `row`: (n,)."""
        near = np.zeros(len(self.mean))
        for start in range(0, count, CHUNK):
            drawn = self.draws(rng, min(CHUNK, count - start))
            near += (drawn >= drawn[:, [row]] - points).sum(0)
        return near / count


def predict(
    features: FeatureTable, prior: Floats, observations: Sequence[Observation], epochs: int
) -> Prediction | None:
    """The accuracy of all rows after `epochs` epochs. None with fewer than eight rows measured: the prior stays.

    `prior` (n,) is a score that needed no training, higher meant to be better. Measurements after more than `epochs`
    epochs are left out. The order of observations does not matter.
    """
    curves = arrange(observations, epochs)
    if len(curves.measured) < MIN_MEASURED:
        return None
    scores = np.column_stack([normal_scores(prior), features.readings])
    with threadpool_limits(1):  # many small matrices, over which a core's threads only wait for each other
        scale, posterior = _best_scale(curves, scores, features.values)
    latent = _latent(curves, scores, features.values, scale, posterior)
    means, deviations = latent.means(), latent.deviations()
    return Prediction(
        epochs=epochs,
        num_measured=len(curves.measured),
        mean=scale.percent(means),
        deviation=(scale.percent(means + deviations) - scale.percent(means - deviations)) / 2,
        noise=latent.noise * scale.points_per_latent(float(np.median(means))),
        lessons=_lessons(features, latent, epochs),
        latent=latent,
    )


def _best_scale(curves: Curves, scores: Floats, features: Floats) -> tuple[Scale, Posterior]:
    """Of all headrooms, the one that foretells best what was measured."""
    found = []
    for headroom in HEADROOMS:
        scale = make_scale(curves, headroom)
        values = scale.latent(curves.accuracy, curves.rungs)
        links = find_links(curves, scores, features, values)
        posterior = infer(make_design(curves, scores, features, links), values)
        found.append((posterior.log_evidence + scale.log_jacobian(curves.accuracy, curves.rungs), scale, posterior))
    _, scale, posterior = max(found, key=lambda each: each[0])
    return scale, posterior


def _latent(curves: Curves, scores: Floats, features: Floats, scale: Scale, posterior: Posterior) -> Latent:
    """The levels of all rungs but the last are left out."""
    end = curves.num_rungs - 1
    return Latent(
        design=np.hstack([np.ones((len(scores), 1)), scores, features]),
        measured=curves.measured,
        mean=posterior.mean[end:],
        covariance=posterior.covariance[end:, end:],
        residual=posterior.residual,
        noise=posterior.noise,
        scale=scale,
    )


def _lessons(features: FeatureTable, latent: Latent, epochs: int) -> tuple[Lesson, ...]:
    """What the weights give all rows, explained by their shape alone (least squares), at the median row."""
    shape = features.shape
    if not features.num_shape:
        return ()
    means = latent.means()
    to_slopes = np.linalg.pinv(shape) @ (latent.design - latent.design.mean(0))  # (shape, b): slopes of shared weights
    num_shared = latent.design.shape[1]
    slopes = to_slopes @ latent.mean[:num_shared]
    deviations = np.sqrt(np.maximum(((to_slopes @ latent.covariance[:num_shared, :num_shared]) * to_slopes).sum(1), 0))
    points, wide = latent.scale.points_per_latent(float(np.median(means))), special.ndtri((1 + LESSON_LEVEL) / 2)
    return tuple(
        Lesson(
            name,
            unit,
            points * slope,
            points * (slope - wide * deviation),
            points * (slope + wide * deviation),
            epochs,
        )
        for name, unit, slope, deviation in zip(features.names, features.units, slopes, deviations, strict=False)
    )
