"""Ways to choose among students that were all trained to the end, replayed on what was recorded of them.

Each sees the validation accuracy of the epochs that it paid for, and is judged by the test accuracy at the end. Regret
is that of the best student less that of the one chosen, in percentage points, in the mean over repetitions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tvt_ray.errors import UsageError
from tvt_ray.refining.choice import Candidates, by_draws, spread
from tvt_ray.refining.halving import MIN_MEASURED, Halving, RefineSettings, Training, next_round_size, round_sizes
from tvt_ray.refining.learned import Learned, Measurement
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.scoring.scores import score_names

NUM_REPEATS, NUM_ROUNDS = RefineSettings().repeats, RefineSettings().rounds
BUDGETS = (0.1, 0.2, 0.4)  # of the epochs that training all to the end takes
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """Students of a band that were trained to the end; arrays are in the order of the ranking's entries."""

    folder: RunFolder
    config: RunConfig
    prior: Ranking
    measurements: tuple[Measurement, ...]
    test: Floats  # percent, at the end

    @property
    def ids(self) -> list[str]:
        return [each.row.arch_id for each in self.prior.scored]

    @property
    def curves(self) -> Floats:
        """(students, epochs), validation accuracy in percent."""
        index, epochs = {arch_id: n for n, arch_id in enumerate(self.ids)}, self.config.distill.epochs
        curves, seed = np.full((len(index), epochs), np.nan), self.config.distill.seed
        for each in self.measurements:
            if each.seed == seed and each.arch_id in index:
                curves[index[each.arch_id], each.epochs - 1] = each.val_acc
        return curves

    @property
    def noise(self) -> float:
        """Standard deviation of the accuracy at the end that another seed changes, from the repeats, in points."""
        last = self.config.distill.epochs
        ends: dict[str, list[float]] = {}
        for each in self.measurements:
            if each.epochs == last:
                ends.setdefault(each.arch_id, []).append(each.val_acc)
        pairs = [np.var(both, ddof=1) for both in ends.values() if len(both) > 1]
        return float(np.sqrt(np.mean(pairs))) if pairs else float("nan")

    @property
    def repeated(self) -> list[int]:
        """Students that two seeds trained."""
        twice = {each.arch_id for each in self.measurements if each.seed != self.config.distill.seed}
        return [number for number, arch_id in enumerate(self.ids) if arch_id in twice]

    def regret(self, chosen: int) -> float:
        return float(self.test.max() - self.test[chosen])


def judge(truth: Truth, repetitions: int) -> dict[str, Any]:
    """Of every way to choose: Kendall's tau with the end where it ranks all, regret, and share of the epochs."""
    total = truth.curves.size
    ways = {name: _by_score(truth, name) for name in score_names()}
    length = truth.curves.shape[1]
    for epoch in (1, 2, 3, 5, 8, length):  # the last says what luck costs who trains all to the end
        ways[f"epoch {epoch}"] = _by_values(truth, truth.curves[:, epoch - 1], epoch / length)
    replays: dict[str, Callable[[Truth, float, np.random.Generator], Chosen]] = {
        "random": replay_random,
        "halving": replay_halving,
        "refine": replay_refine,
        "refine, one round": functools.partial(replay_refine, rounds=1),
    }
    for name, replay in replays.items():
        for share in BUDGETS:
            runs = [replay(truth, share * total, np.random.default_rng(seed)) for seed in range(repetitions)]
            regrets = [truth.regret(each.index) for each in runs]
            ways[f"{name} {share:.0%}"] = {
                "tau": float(np.mean([each.tau for each in runs])) if name.startswith("refine") else None,
                "regret": float(np.mean(regrets)),
                "regret_error": float(np.std(regrets) / np.sqrt(repetitions)),  # standard error of the mean
                "epochs": float(np.mean([each.epochs for each in runs])) / total,
            }
    ends = {"best": truth.test.max(), "median": np.median(truth.test), "worst": truth.test.min()}
    ends = {name: float(value) for name, value in ends.items()}
    return {"students": len(truth.ids), "noise": truth.noise, **ends, "ways": ways}


def _by_score(truth: Truth, name: str) -> dict[str, Any]:
    ranking = truth.folder.ranking(truth.config.score.named(name))
    score = {each.row.arch_id: each.score for each in ranking.scored}
    return _by_values(truth, np.array([score[arch_id] for arch_id in truth.ids]), 0)


def _by_values(truth: Truth, values: Floats, epochs: float) -> dict[str, Any]:
    return {
        "tau": float(stats.kendalltau(values, truth.test).statistic),
        "regret": truth.regret(int(values.argmax())),
        "epochs": epochs,
    }


@dataclass(frozen=True)
class Chosen:
    """What a way to choose came to."""

    index: int
    epochs: int  # that it paid for
    tau: float = float("nan")


def replay_random(truth: Truth, epochs: float, rng: np.random.Generator) -> Chosen:
    """As many as can be trained to the end, the best of them by validation."""
    length = truth.curves.shape[1]
    count = max(1, int(epochs // length))
    picked = rng.permutation(len(truth.ids))[:count]
    return Chosen(int(picked[truth.curves[picked, -1].argmax()]), count * length)


def replay_halving(truth: Truth, epochs: float, rng: np.random.Generator) -> Chosen:
    """Random students, in one round of refine's rungs; the best of the last rung."""
    order = rng.permutation(len(truth.ids)).tolist()
    settings, halving = _affordable(truth, epochs, rounds=1)
    measured = _Measured(truth, [])
    measured.train_round(halving, [order[: settings.num_students]])
    last = [i for i, _, epoch in measured.known if epoch == halving.rungs[-1]]
    chosen = max(map(int, last), key=lambda i: truth.curves[i, halving.rungs[-1] - 1])
    return Chosen(chosen, measured.epochs)


def replay_refine(truth: Truth, epochs: float, rng: np.random.Generator, rounds: int = NUM_ROUNDS) -> Chosen:
    """What `tvt refine` does: rounds, repeats, the surrogate, and the first of its ranking.

    Where repeats leave too little for the surrogate to learn from, there are none: a user would set so.
    """
    length = RefineSettings().rungs_of(truth.curves.shape[1])[0]
    repeated = rng.choice(truth.repeated, min(NUM_REPEATS, len(truth.repeated)), replace=False).tolist()
    settings, halving = _affordable(truth, epochs - 2 * length * len(repeated), rounds)
    if settings.num_students < MIN_MEASURED:
        repeated, (settings, halving) = [], _affordable(truth, epochs, rounds)
    measured, chosen, shapes = _Measured(truth, repeated), list[list[int]](), [e.row.shape for e in truth.prior.scored]
    measured.repeat(halving)
    while size := next_round_size(settings, halving, [len(each) for each in chosen]):
        learned, taken = measured.learned(halving), [shapes[i] for each in chosen for i in each]
        if learned.prediction is None:
            params = [each.row.params for each in learned.entries]
            found = Candidates(shapes, params, learned.features.values, learned.scores)
            chosen.append(spread(found, size, taken, rng))
        else:
            chosen.append(by_draws(shapes, learned.prediction.draws(rng, size), taken))
        measured.train_round(halving, chosen)
    learned = measured.learned(halving)
    values = learned.scores if learned.prediction is None else learned.prediction.mean
    tau = float(stats.kendalltau(values, truth.test).statistic)
    return Chosen(int(values.argmax()), measured.epochs, tau)


def _affordable(truth: Truth, epochs: float, rounds: int) -> tuple[RefineSettings, Halving]:
    """The most students that a budget of epochs holds, and the rungs of refine's defaults."""
    length = truth.curves.shape[1]
    halving = Halving.of(RefineSettings(repeats=0), length, truth.config.distill.seed)
    for count in range(len(truth.ids), 0, -1):
        settings = RefineSettings(num_students=count, rounds=rounds, repeats=0)
        if halving.most_epochs(round_sizes(settings, halving)) <= epochs:
            return settings, halving
    raise UsageError(f"a budget of {epochs:.0f} epochs holds no student")


class _Measured:
    """What a replay has paid for."""

    def __init__(self, truth: Truth, repeated: Sequence[int]) -> None:
        self.truth, self.known, self.repeated = truth, dict[tuple[str, int, int], float](), repeated

    def repeat(self, halving: Halving) -> None:
        """Two seeds of some students to the first rung: those that the truth has two of."""
        epochs, seed = halving.rungs[0], halving.seed
        for i in self.repeated:
            second = {(m.arch_id, m.seed, m.epochs): m.val_acc for m in self.truth.measurements}
            self.known[str(i), seed, epochs] = self.truth.curves[i, epochs - 1]
            self.known[str(i), seed + 1, epochs] = second[self.truth.ids[i], seed + 1, epochs]

    def train_round(self, halving: Halving, rounds: Sequence[Sequence[int]]) -> None:
        """All rounds to their end, as far as they are not there."""
        names = [[str(i) for i in each] for each in rounds]
        while todo := halving.missing(names, self.known):
            self.known |= dict(self._train(todo))

    def _train(self, todo: Sequence[Training]) -> Iterator[tuple[tuple[str, int, int], float]]:
        for each in todo:
            yield (each.arch_id, each.seed, each.epochs), self.truth.curves[int(each.arch_id), each.epochs - 1]

    @property
    def epochs(self) -> int:
        longest: dict[tuple[str, int], int] = {}
        for name, seed, epochs in self.known:
            longest[name, seed] = max(longest.get((name, seed), 0), epochs)
        return sum(longest.values())

    def learned(self, halving: Halving) -> Learned:
        """What the surrogate makes of it."""
        ids = self.truth.ids
        own = [Measurement(ids[int(i)], e, seed, acc, 0.0, "") for (i, seed, e), acc in self.known.items()]
        return Learned(self.truth.prior, self.truth.config.space, tuple(own), halving.rungs)
