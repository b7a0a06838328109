"""The surrogate's arithmetic: a Bayesian linear model whose settings are weighed by how well they foretell.

Latent accuracy of a training of row i with seed s at rung e:

    u = level_e + gain_e (slope . scores_i + weights . features_i + residual_i + noise_is + early_ise)

`gain` is 1 and `early` is 0 at the last rung. Everything is Gaussian but the noise, which has heavy tails (Student's t
with four degrees of freedom): a training that failed is not a lesson. Links between rungs are set to what is most
probable. The other settings are summed over, on a grid, as a few measurements leave them open.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, special

from tvt_ray.refining.curves import Curves
from tvt_ray.refining.features import Floats

# Before anything is measured: how much of the variance scores and features explain, ...
EXPLAINED = (0.02, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95)
FEATURE_SHARES = (0.0, 0.3, 0.8)  # ... spread that features may add, in that of the score, ...
SPREADS = (0.8, 1.4)  # ... and the standard deviation of all rows in that of those measured
SLOPE_DOUBT = 0.5  # standard deviation of the slope in its mean: a score has been right before, so 2 of them to 0
GIVEN = 0.5  # probability that the given score leads, rather than one of the readings
SEED_SHARE = 0.2  # of what scores and features leave, another seed's doing, before repeats say more (docs/surrogate.md)
LEVEL_VARIANCE = 10.0
TAILS = 4.0  # degrees of freedom of the noise
REWEIGHTINGS = 3
JITTER = (0.0, 1e-10, 1e-8, 1e-6)  # of the mean variance, added to each in turn until a factor is found


@dataclass(frozen=True)
class Links:
    """How trainings of one row and rungs of one training belong together."""

    seed_share: float  # of the variance that scores and features leave at the end, the part that another seed changes
    gains: Floats  # (rungs,); the last is 1
    early: Floats  # (rungs,) standard deviation of what a rung has on top, in that of what is left; the last is 0


@dataclass(frozen=True)
class Design:
    """Observations as rows of a linear model."""

    matrix: Floats  # (m, p): a level for each rung, scores, features, a residual for each row that was measured
    noise: Floats  # (m, m) covariance of the noise where what is left has variance 1
    num_rungs: int
    num_scores: int
    num_features: int
    seed_share: float


@dataclass(frozen=True)
class Setting:
    """One choice of all that is summed over."""

    leader: int  # which score has the slope
    slope: float
    feature_deviation: float  # of all weights together
    left: float  # variance that neither explains
    log_prior: float


@dataclass(frozen=True)
class Posterior:
    """Of the model's p weights, over all settings."""

    log_evidence: float  # of the latent accuracies
    mean: Floats  # (p,)
    covariance: Floats  # (p, p)
    residual: float  # standard deviation of a row that was not measured around what is foretold
    noise: float  # of a training at the end around its row


def find_links(curves: Curves, scores: Floats, features: Floats, latent: Floats) -> Links:
    """The most probable links; those assumed beforehand where there is one rung and no row has two trainings."""
    repeated = len(np.unique(curves.trainings)) > len(curves.measured)
    start = np.concatenate(
        [[special.logit(SEED_SHARE)], np.zeros(curves.num_rungs - 1), np.log(0.5) * np.ones(curves.num_rungs - 1)]
    )
    if curves.num_rungs == 1 and not repeated:
        return _links(start, curves.num_rungs)
    deviations = np.concatenate([[1.5], np.ones(curves.num_rungs - 1), np.ones(curves.num_rungs - 1)])

    def loss(parameters: Floats) -> float:
        """Minus the log of the posterior density; the first two are the explained variance and the spread."""
        links, explained = _links(parameters[2:], curves.num_rungs), float(special.expit(parameters[0]))
        design = make_design(curves, scores, features, links)
        spread = float(np.exp(np.clip(parameters[1], -10, 10)))  # beyond, nothing can be solved
        setting = _setting(0, explained, 0.3, spread, 0.0)
        off = np.concatenate([parameters[:2] / (1.5, 0.5), (parameters[2:] - start) / deviations])
        return float(off @ off) / 2 - _log_evidence(design, setting, latent)

    found = optimize.minimize(loss, np.concatenate([[0.0, 0.0], start]), method="L-BFGS-B", options={"maxiter": 60})
    return _links(found.x[2:], curves.num_rungs)


def _links(parameters: Floats, num_rungs: int) -> Links:
    gains, early = np.clip(parameters[1:], -4, 4).reshape(2, num_rungs - 1)
    share = float(special.expit(np.clip(parameters[0], -4, 4)))
    return Links(share, np.append(np.exp(gains), 1.0), np.append(np.exp(early), 0.0))


def make_design(curves: Curves, scores: Floats, features: Floats, links: Links) -> Design:
    """`scores` (n, s) and `features` (n, d) are of all rows."""
    measured = curves.measured
    gains = links.gains[curves.rungs][:, None]
    levels = np.eye(curves.num_rungs)[curves.rungs]
    own = (curves.rows[:, None] == measured).astype(np.float64)
    same_training = (curves.trainings[:, None] == curves.trainings).astype(np.float64)
    unlike = np.diag(links.early[curves.rungs] ** 2 + 1e-6)
    return Design(
        matrix=np.hstack([levels, gains * scores[curves.rows], gains * features[curves.rows], gains * own]),
        noise=gains * (links.seed_share * same_training + unlike) * gains.T,
        num_rungs=curves.num_rungs,
        num_scores=scores.shape[1],
        num_features=features.shape[1],
        seed_share=links.seed_share,
    )


def infer(design: Design, latent: Floats) -> Posterior:
    """Sums over settings; trainings far off what the others say lose weight, thrice in turn."""
    settings = _grid(design.num_scores)
    prior_means, prior_variances = _priors(design, settings)
    left = np.array([each.left for each in settings])
    log_priors = np.array([each.log_prior for each in settings])
    off = latent - prior_means @ design.matrix.T  # (settings, m)
    explained = np.einsum("ip,kp,jp->kij", design.matrix, prior_variances, design.matrix, optimize=True)
    weighed = _weigh(design.noise, explained, left, off, log_priors)
    for _ in range(REWEIGHTINGS):
        precisions = _precisions(design, left, weighed)
        noise = np.asarray(design.noise / np.sqrt(precisions[:, None] * precisions))
        weighed = _weigh(noise, explained, left, off, log_priors)
    tails = float(np.sum(TAILS / 2 * (np.log(precisions) - precisions + 1)))  # density of the precisions; 1 gives 0
    mean, covariance = _mixture(design, prior_means, prior_variances, weighed)
    left_mean = float(weighed.shares @ left)
    return Posterior(
        log_evidence=float(special.logsumexp(weighed.log_densities)) + tails,
        mean=mean,
        covariance=covariance,
        residual=float(np.sqrt((1 - design.seed_share) * left_mean)),
        noise=float(np.sqrt(design.seed_share * left_mean)),
    )


def _grid(num_scores: int) -> list[Setting]:
    others = max(num_scores - 1, 1)
    log_priors = [np.log(GIVEN), *[np.log((1 - GIVEN) / others)] * (num_scores - 1)]
    return [
        _setting(leader, explained, share, spread, log_priors[leader])
        for leader, explained, share, spread in itertools.product(range(num_scores), EXPLAINED, FEATURE_SHARES, SPREADS)
    ]


def _setting(leader: int, explained: float, share: float, spread: float, log_prior: float) -> Setting:
    """Slope, features and what is left add up to the spread."""
    slope = spread * np.sqrt(explained / (1 + SLOPE_DOUBT**2 + share**2))
    return Setting(leader, float(slope), float(share * slope), float(spread**2 * (1 - explained)), float(log_prior))


def _priors(design: Design, settings: Sequence[Setting]) -> tuple[Floats, Floats]:
    """Means and variances of the weights before anything is measured: (settings, p) each."""
    first_score = design.num_rungs
    first_feature = first_score + design.num_scores
    first_residual = first_feature + design.num_features
    means = np.zeros((len(settings), design.matrix.shape[1]))
    variances = np.zeros_like(means)
    variances[:, :first_score] = LEVEL_VARIANCE
    for k, each in enumerate(settings):
        means[k, first_score + each.leader] = each.slope
        variances[k, first_score + each.leader] = (SLOPE_DOUBT * each.slope) ** 2
        variances[k, first_feature:first_residual] = each.feature_deviation**2 / max(design.num_features, 1)
        variances[k, first_residual:] = (1 - design.seed_share) * each.left
    return means, variances


def _log_evidence(design: Design, setting: Setting, latent: Floats) -> float:
    means, variances = _priors(design, [setting])
    covariance = (design.matrix * variances[0]) @ design.matrix.T + setting.left * design.noise
    factor = _cholesky(covariance)
    off = linalg.solve_triangular(factor, latent - design.matrix @ means[0], lower=True)
    return float(-off @ off / 2 - np.log(np.diag(factor)).sum())


def _cholesky(covariance: Floats) -> Floats:
    """The lower factor; where rounding leaves a covariance that is none, with the least that makes it one again."""
    for share in JITTER:
        with contextlib.suppress(linalg.LinAlgError):
            jitter = share * np.diag(covariance).mean() * np.eye(len(covariance))
            return np.asarray(linalg.cholesky(covariance + jitter, lower=True))
    raise linalg.LinAlgError("the covariance of what was measured is none")


@dataclass(frozen=True)
class _Weighed:
    """All settings against what was measured."""

    noise: Floats  # (m, m) covariance where what is left has variance 1
    inverses: Floats  # (settings, m, m) of the covariance of what was measured
    solved: Floats  # (settings, m) the same times what the prior mean is off
    log_densities: Floats  # (settings,)

    @property
    def shares(self) -> Floats:
        """Probabilities: (settings,)."""
        return np.asarray(special.softmax(self.log_densities))


def _weigh(noise: Floats, explained: Floats, left: Floats, off: Floats, log_priors: Floats) -> _Weighed:
    inverses: Floats = np.asarray(np.linalg.inv(explained + left[:, None, None] * noise), dtype=np.float64)
    solved = np.einsum("kij,kj->ki", inverses, off)
    log_densities = (np.linalg.slogdet(inverses)[1] - (off * solved).sum(1)) / 2 + log_priors
    return _Weighed(noise, inverses, solved, log_densities)


def _precisions(design: Design, left: Floats, weighed: _Weighed) -> Floats:
    """One step of expectation and maximisation of Student's t: how much each observation is to count."""
    noise = weighed.noise
    noises = left[:, None] * (weighed.solved @ noise)
    within = np.einsum("ai,kab,bi->ki", noise, weighed.inverses, noise, optimize=True)
    squares = noises**2 + left[:, None] * np.diag(noise) - left[:, None] ** 2 * within
    expected = weighed.shares @ (squares / (left[:, None] * np.diag(design.noise)))
    return np.asarray((TAILS + 1) / (TAILS + expected))


def _mixture(design: Design, means: Floats, variances: Floats, weighed: _Weighed) -> tuple[Floats, Floats]:
    """Mean and covariance over all settings that matter."""
    matrix, shares = design.matrix, weighed.shares
    kept = np.flatnonzero(shares > 1e-4 * shares.max())
    weights = shares[kept] / shares[kept].sum()
    found = means[kept] + variances[kept] * (weighed.solved[kept] @ matrix)
    mean = weights @ found
    covariance = np.zeros((len(mean), len(mean)))
    for weight, k, each in zip(weights, kept, found, strict=True):
        known = variances[k][:, None] * (matrix.T @ weighed.inverses[k] @ matrix) * variances[k]
        covariance += weight * (np.diag(variances[k]) - known + np.outer(each - mean, each - mean))
    return mean, (covariance + covariance.T) / 2
