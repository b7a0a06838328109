"""Holds the surrogate against plain models on the same labels: ridge regression, a Gaussian process, the score alone.

python -m benchmarks surrogates --ground-truth FILE.jsonl … --labels 8,16,32 --draws 40 --dataset … --teacher …

Each draw labels some rows of a table at random; every model learns from those and ranks the others. Plain models see
what the surrogate sees: the score and the readings as normal scores, shapes in doublings. Differences are means over
columns and draws, with what holds 95 % of 1,000 resamples of the draws.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from benchmarks.runner import CONFIG, Record
from tvt_ray.cli.options import add_options, config_of
from tvt_ray.cli.output import print_table
from tvt_ray.errors import UsageError
from tvt_ray.judging.agreement import Sizes, at_equal_size, kendall_tau
from tvt_ray.judging.study import RankRequest, score_ground_truth
from tvt_ray.judging.tables import LabelRequest
from tvt_ray.judging.truth import Scored
from tvt_ray.progress import Meter
from tvt_ray.refining.features import normal_scores
from tvt_ray.refining.halving import MIN_MEASURED
from tvt_ray.refining.surrogate import Observation, predict

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
NUM_RESAMPLES = 1000


def add(parser: argparse.ArgumentParser) -> None:
    add_options(parser, *CONFIG, "num-images", "seed", "ray-address")
    parser.add_argument("--ground-truth", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--columns", metavar="A,B", help="accuracy columns (default: all)")
    parser.add_argument(
        "--labels", default="8,16,32", metavar="A,B,C", help="rows that are labelled (default: 8,16,32)"
    )
    parser.add_argument("--draws", type=int, default=40, metavar="N", help="of those rows (default: 40)")


def by_score(one: Scored, chosen: Rows, accuracy: Floats) -> Floats:
    """What needs no label."""
    assert one.learns_from is not None
    return one.learns_from.prior


def by_surrogate(one: Scored, chosen: Rows, accuracy: Floats) -> Floats:
    """The product's own."""
    assert one.learns_from is not None
    seen = [Observation(int(row), 1, 0, float(accuracy[row])) for row in chosen]
    prediction = predict(one.learns_from.features, one.learns_from.prior, seen, epochs=1)
    assert prediction is not None
    return prediction.mean


def inputs(one: Scored) -> Floats:
    """(n, 1 + d): the score, shapes and readings, each column with mean 0."""
    assert one.learns_from is not None
    return np.column_stack([normal_scores(one.learns_from.prior), one.learns_from.features.values])


def by_ridge(one: Scored, chosen: Rows, accuracy: Floats) -> Floats:
    """Its strength by leave-one-out over the labels."""
    x = inputs(one)
    model = RidgeCV(alphas=np.logspace(-2, 4, 25)).fit(x[chosen], accuracy[chosen])
    return np.asarray(model.predict(x))


def by_process(one: Scored, chosen: Rows, accuracy: Floats) -> Floats:
    """One length for all inputs, and noise, by the marginal likelihood."""
    x = inputs(one)
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(3.0, (0.3, 100.0)) + WhiteKernel(0.3, (1e-3, 1e1))
    model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of bounds that are reached
        return np.asarray(model.fit(x[chosen], accuracy[chosen]).predict(x))


MODELS: Mapping[str, Callable[[Scored, Rows, Floats], Floats]] = {
    "surrogate": by_surrogate,
    "ridge": by_ridge,
    "Gaussian process": by_process,
    "score alone": by_score,
}
FIGURES = ("kendall", "equal", "regret")  # tau, tau within pairs of equal parameters, points lost by the first choice


def measure(args: argparse.Namespace, record: Record) -> dict[str, Any]:
    try:
        counts = [int(text) for text in args.labels.split(",")]
    except ValueError:
        raise UsageError(f"--labels are numbers with commas between; got {args.labels!r}") from None
    if min(counts) < MIN_MEASURED or args.draws < 2:
        raise UsageError(f"--labels are at least {MIN_MEASURED} and --draws at least 2")
    config, columns = config_of(args), tuple(args.columns.split(",")) if args.columns else None
    request = RankRequest(
        tuple(args.ground_truth), (config.score.name,), columns, labels=LabelRequest(max(counts), args.draws)
    )
    scored = score_ground_truth(config, request, args.ray_address)
    pairs = [(one, column) for one in scored for column in columns or one.truth.columns]
    found = {
        str(count): record.once(f"labels-{count}", judge, pairs, count, args.draws, config.seed) for count in counts
    }
    return {"labels": found, "score": config.score.name}


def judge(pairs: Sequence[tuple[Scored, str]], count: int, num_draws: int, seed: int) -> dict[str, Any]:
    """Every model on every draw of every column, and the differences of the others to the surrogate."""
    values = np.full((len(FIGURES), len(MODELS), len(pairs), num_draws), np.nan)
    with Meter(f"{count} labels", len(pairs) * num_draws, "draws") as meter, threadpool_limits(1):
        for place, (one, column) in enumerate(pairs):
            accuracy = one.truth.accuracy(column)
            for draw in range(num_draws):
                order = np.random.default_rng([seed, draw]).permutation(len(accuracy))
                chosen, left = np.sort(order[:count]), np.sort(order[count:])
                for number, model in enumerate(MODELS.values()):
                    values[:, number, place, draw] = _figures(one, model(one, chosen, accuracy), accuracy, left)
                meter.advance(1)
    names = [f"{one.truth.space.name} {column}" for one, column in pairs]
    return {
        name: {
            **{figure: _mean(values[i, number]) for i, figure in enumerate(FIGURES)},
            "by_column": dict(zip(names, np.nanmean(values[0, number], axis=1).tolist(), strict=True)),
            **({} if number == 0 else _ahead(values[:, 0] - values[:, number])),
        }
        for number, name in enumerate(MODELS)
    }


def _figures(one: Scored, predicted: Floats, accuracy: Floats, left: Rows) -> tuple[float, float, float]:
    truth = one.truth
    sizes = Sizes(truth.params, truth.flops, truth.shapes).of(left)
    equal = at_equal_size(predicted[left], accuracy[left], sizes).kendall_equal_params
    first = left[np.lexsort((accuracy[left], -predicted[left]))[0]]
    tau = kendall_tau(predicted[left], accuracy[left])
    return tau or 0.0, np.nan if equal is None else equal, float(accuracy[left].max() - accuracy[first])


def _mean(values: Floats) -> float:
    return float(np.nanmean(values))


def _ahead(differences: Floats) -> dict[str, Any]:
    """(figures, columns, draws): by how much the surrogate is ahead, in the mean over columns."""
    by_draw = np.nanmean(differences, axis=1)
    picks = np.random.default_rng(0).integers(0, by_draw.shape[1], (NUM_RESAMPLES, by_draw.shape[1]))
    means = by_draw[:, picks].mean(2)
    return {
        f"surrogate_ahead_{figure}": {
            "mean": float(by_draw[i].mean()),
            "ci95": [float(end) for end in np.percentile(means[i], (2.5, 97.5))],
        }
        for i, figure in enumerate(FIGURES)
    }


def show(result: Mapping[str, Any]) -> None:
    for count, models in result["labels"].items():
        rows = [
            [name, *(f"{of[figure]:.3f}" for figure in FIGURES), *(_ahead_text(of, figure) for figure in FIGURES[:2])]
            for name, of in models.items()
        ]
        columns = ["model", "tau", "at equal size", "regret", "surrogate ahead, tau", "at equal size"]
        print_table(f"{count} labels, score {result['score']}", columns, rows)


def _ahead_text(of: Mapping[str, Any], figure: str) -> str:
    ahead = of.get(f"surrogate_ahead_{figure}")
    return "" if ahead is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(ahead["mean"], *ahead["ci95"])
