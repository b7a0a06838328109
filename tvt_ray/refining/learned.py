"""Measurements of a run's students, and the ranking that they give: what a few trainings say of every row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from tvt_ray.refining.features import FeatureTable, Floats, feature_table
from tvt_ray.refining.surrogate import Observation, Prediction, predict
from tvt_ray.scoring.ranking import Entry, Ranking, by_score
from tvt_ray.scoring.scores import MEASURED
from tvt_ray.storage.records import Codec
from tvt_ray.vits.space import Space


@dataclass(frozen=True)
class Measurement:
    """Validation accuracy after `epochs` of a training that `recipe` names, whatever its length was to be."""

    arch_id: str
    epochs: int
    seed: int  # of the training
    val_acc: float  # percent, top-1
    seconds: float  # of training and validating these epochs
    recipe: str  # hash of the settings, the teacher and the data


POINTS, CERTAINTY = 1.0, 0.8  # as good: at most so many points worse than the best, with this probability


@dataclass(frozen=True)
class AsGood:
    """The cheapest row that is most likely about as good as the first of the ranking."""

    entry: Entry
    points: float  # percentage points that it may be worse by,
    chance: float  # and how probable it is that it is not worse by more

    def sentence(self) -> str:
        """How good it is, after its name."""
        points = f"{self.points:g} point{'' if self.points == 1 else 's'}"
        return f"is within {points} of the best with a chance of {100 * self.chance:.0f} %"


SCHEMA = pa.schema(
    [
        ("arch_id", pa.string()),
        ("epochs", pa.int64()),
        ("seed", pa.int64()),
        ("val_acc", pa.float64()),
        ("seconds", pa.float64()),
        ("recipe", pa.string()),
    ]
)


MEASUREMENTS: Codec[Measurement] = Codec(
    SCHEMA,
    lambda measurements: pa.Table.from_pylist([dataclasses.asdict(each) for each in measurements], SCHEMA),
    lambda table: [Measurement(**record) for record in table.select(SCHEMA.names).to_pylist()],
    key=lambda each: (each.arch_id, each.epochs, each.seed, each.recipe),
)


@dataclass(frozen=True)
class Learned:
    """Rows under a zero-cost ranking, and what measurements of some predict for all."""

    prior: Ranking
    space: Space
    measurements: tuple[Measurement, ...]  # of one recipe
    rungs: tuple[int, ...]  # epochs at which students are compared; the last one is what is predicted

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Rows with their prior scores, in the order of all arrays here.

        Of a shape that was measured, only the rows that were: a copy has nothing to say beside them.
        """
        measured = {each.arch_id for each in self.measurements}
        shapes = {each.row.shape for each in self.prior.scored if each.row.arch_id in measured}
        scored = (each for each in self.prior.scored if each.row.shape not in shapes or each.row.arch_id in measured)
        return tuple(scored)

    @cached_property
    def features(self) -> FeatureTable:
        """What the surrogate reads of `entries`."""
        return feature_table([each.row for each in self.entries], self.space)

    @property
    def scores(self) -> Floats:
        """Scores by the prior: (n,)."""
        return np.array([each.score for each in self.entries])

    @cached_property
    def observations(self) -> tuple[Observation, ...]:
        """Measurements at the rungs, of rows that are there."""
        return tuple(
            Observation(self.index[each.arch_id], each.epochs, each.seed, each.val_acc)
            for each in self.measurements
            if each.arch_id in self.index and each.epochs in self.rungs
        )

    @cached_property
    def prediction(self) -> Prediction | None:
        """None where too few rows were measured: the prior then stays."""
        return predict(self.features, self.scores, self.observations, self.rungs[-1]) if self.entries else None

    @cached_property
    def ranking(self) -> Ranking:
        """By predicted accuracy in percent; by the prior's score where nothing is predicted."""
        values = self.scores if self.prediction is None else self.prediction.mean
        return by_score(MEASURED, [Entry(each.row, float(v)) for each, v in zip(self.entries, values, strict=True)])

    def as_good(self, points: float = POINTS, costs: Floats | None = None, seed: int = 0) -> AsGood | None:
        """The cheapest row that is within `points` of the first with a probability of CERTAINTY.

        `costs` (n,): of `entries`; None: parameters. Of equal costs the better one. It may be the first itself. None
        where too few were measured.
        """
        if self.prediction is None:
            return None
        first = self.index[self.ranking.top(1)[0].row.arch_id]
        chances = self.prediction.chances_of_being_near(np.random.default_rng(seed), first, points)
        costs = np.array([each.row.params for each in self.entries], float) if costs is None else costs
        near = np.flatnonzero(chances >= CERTAINTY)
        chosen = int(near[np.lexsort((-self.prediction.mean[near], costs[near]))[0]])
        entry = Entry(self.entries[chosen].row, float(self.prediction.mean[chosen]))
        return AsGood(entry, points, float(chances[chosen]))

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Where rows stand in the arrays, by the ids of their architectures."""
        return {each.row.arch_id: number for number, each in enumerate(self.entries)}

    def last_measured(self, arch_id: str) -> Measurement | None:
        """The measurement of a row's longest training."""
        own = [each for each in self.measurements if each.arch_id == arch_id]
        return max(own, key=lambda each: (each.epochs, -each.seed), default=None)


def choose_recipe(measurements: Sequence[Measurement], wanted: str | None) -> tuple[Measurement, ...]:
    """Those of one recipe: the wanted one, else that by which most were trained, of equals the later one."""
    if wanted is None:
        students: dict[str, set[str]] = {}
        for each in measurements:
            students.setdefault(each.recipe, set()).add(each.arch_id)
        wanted = max(reversed(list(students)), key=lambda recipe: len(students[recipe]), default=None)
    return tuple(each for each in measurements if each.recipe == wanted)
