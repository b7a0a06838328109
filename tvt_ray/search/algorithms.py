"""What to score next: random, exhaustive, evolution and Optuna's samplers behind one ask and tell.

An algorithm only proposes and observes; `Sampler` sees to it that what is asked for is in budget and new.
"""

from __future__ import annotations

import functools
import itertools
import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from tvt_ray.search.rows import Row
from tvt_ray.space import Arch, Budget, Space

# Proposals in a row that are over budget or known before a sampler turns to random draws, then to enumeration.
# A proposal of Optuna's costs tens of milliseconds once its history is long, so it gets few.
MAX_REJECTIONS = 50
MAX_OPTUNA_REJECTIONS = 4
MAX_RANDOM_REJECTIONS = 20_000
MAX_ENUMERATION = 2_000_000
MAX_HISTORY = 500  # trials that an Optuna sampler keeps; its study holds at most twice as many

Values = tuple[float, ...]  # one per objective; score is maximised, flops minimised


class SearchSettings(BaseModel):
    """How many architectures, and who proposes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_samples: PositiveInt = 5000  # different architectures
    searcher: Literal["random", "exhaustive", "evolution", "tpe", "nsga2"] = "random"
    objectives: Literal["score", "score_flops"] = "score"  # score_flops: nsga2 searches the Pareto front
    num_workers: PositiveInt | None = None  # scoring actors at most; None: as many as the cluster holds
    archs_per_trial: PositiveInt | None = None  # None: as many as take about four seconds, at most 64
    # None: 0.25 where there is a GPU, else 0; auto: as the memory that the largest architecture takes allows
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] | None = None
    min_gpus: int = Field(0, ge=0)  # GPUs that are asked of the cluster and waited for before anything is scored
    gpu_timeout_s: float = Field(1800, gt=0)  # how long
    max_seconds_per_arch: float | None = Field(600, gt=0)  # a row with its reason beyond that; None: no limit
    max_failure_share: float = Field(0.5, ge=0, le=1)  # of the architectures scored; beyond that the run stops
    population: int = Field(64, ge=2)  # evolution, nsga2
    tournament: int = Field(16, ge=1)  # evolution
    crossover: float = Field(0.0, ge=0, le=1)  # evolution: share of children with two parents

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        if self.objectives == "score_flops" and self.searcher != "nsga2":
            raise ValueError(f"objectives score_flops needs the searcher nsga2; got {self.searcher}")
        if isinstance(self.gpus_per_trial, float) and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial is a fraction of one GPU or a whole number; got {self.gpus_per_trial}")
        return self


def objectives(row: Row, count: int) -> Values | None:
    """What a searcher is told: the score to maximise, and as the second the FLOPs to minimise."""
    return None if row.score is None else (row.score, float(row.flops))[:count]


class Algorithm(Protocol):
    """Every proposal is followed, at some time and in any order, by `observe` or `reject` of the same architecture."""

    def propose(self) -> Arch | None:
        """An architecture, repeated and over-budget ones included; None when there are no more."""
        ...

    def observe(self, arch: Arch, values: Values | None) -> None:
        """None: could not be scored. Also told of architectures that it did not propose."""
        ...

    def reject(self, arch: Arch) -> None:
        """The proposal was over budget or known and is not going to be scored."""
        ...


class RandomSearch:
    """Independent draws from the space.

    A resumed run draws the same sequence again. What it is told of before it has drawn it, an earlier run drew: it is
    passed over when its turn comes, so that a draw of many thousands is caught up with in one proposal.
    """

    def __init__(self, space: Space, rng: random.Random) -> None:
        self.space, self.rng = space, rng
        self._pending: set[Arch] = set()  # proposed, and neither observed nor rejected yet
        self._ahead: set[Arch] = set()  # observed, and not drawn yet

    def propose(self) -> Arch | None:
        while (arch := self.space.sample(self.rng)) in self._ahead:
            self._ahead.remove(arch)
        self._pending.add(arch)
        return arch

    def observe(self, arch: Arch, values: Values | None) -> None:
        """Draws do not depend on results."""
        if arch in self._pending:
            self._pending.remove(arch)
        else:
            self._ahead.add(arch)

    def reject(self, arch: Arch) -> None:
        """Draws do not depend on rejections."""
        self._pending.discard(arch)


class ExhaustiveSearch:
    """The whole space, in its own order."""

    def __init__(self, space: Space) -> None:
        self._archs: Iterator[Arch] = space.enumerate()

    def propose(self) -> Arch | None:
        return next(self._archs, None)

    def observe(self, arch: Arch, values: Values | None) -> None:
        """The order does not depend on results."""

    def reject(self, arch: Arch) -> None:
        """The order does not depend on rejections."""


class EvolutionSearch:
    """Regularised evolution (Real et al. 2019, https://arxiv.org/abs/1802.01548).

    The population is the last `population` scored architectures, whatever their scores: ageing is what regularises.
    A child is a mutation of the best of a random tournament, or of a crossover of two such parents.
    """

    def __init__(self, space: Space, rng: random.Random, population: int, tournament: int, crossover: float) -> None:
        self.space, self.rng, self.tournament, self.crossover = space, rng, tournament, crossover
        self._population: deque[tuple[float, Arch]] = deque(maxlen=population)

    def propose(self) -> Arch | None:
        if len(self._population) < (self._population.maxlen or 0):
            return self.space.sample(self.rng)
        parent = self._parent()
        if self.rng.random() < self.crossover:
            parent = self.space.crossover(parent, self._parent(), self.rng)
        return self.space.mutate(parent, self.rng)

    def _parent(self) -> Arch:
        rivals = self.rng.sample(range(len(self._population)), min(self.tournament, len(self._population)))
        return max((self._population[i] for i in rivals), key=lambda member: member[0])[1]

    def observe(self, arch: Arch, values: Values | None) -> None:
        if values is not None:
            self._population.append((values[0], arch))

    def reject(self, arch: Arch) -> None:
        """A rejected child never joins the population."""


class OptunaSearch:
    """An Optuna sampler over the space's fixed-length encoding (Akiba et al. 2019; TPE, NSGA-II).

    A proposal costs Optuna time that grows with its history (TPE: 20 ms after 500 trials, 113 ms after 5,000), so the
    study is begun anew once it has twice `max_history` trials, with those that `keep` chooses of it. Optuna has no
    notion of an architecture that must not repeat, so rejected proposals are told as failed trials. What the sampler
    did not propose to this study (a resumed run's rows, the random fallback, what is kept) is enqueued and asked for,
    which gives such trials all that a sampler keeps on its own (NSGA-II's generations).
    """

    def __init__(
        self, space: Space, sampler: Any, num_objectives: int, max_history: int, keep: Callable[[Any, int], list[Any]]
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._new_study = functools.partial(
            optuna.create_study, directions=["maximize", "minimize"][:num_objectives], sampler=sampler
        )
        self.space, self.max_history, self._keep = space, max_history, keep
        self.study, self._num_trials = self._new_study(), 0
        self.distributions: dict[str, Any] = {
            f"x{i:02}": optuna.distributions.IntDistribution(0, count - 1) for i, count in enumerate(space.dimensions)
        }
        self._pending: dict[Arch, list[Any]] = {}

    def propose(self) -> Arch | None:
        self._forget()
        trial = self._ask()
        arch = self.space.decode([trial.params[name] for name in self.distributions])
        self._pending.setdefault(arch, []).append(trial)
        return arch

    def _ask(self) -> Any:
        self._num_trials += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental-feature notices
            return self.study.ask(self.distributions)

    def _forget(self) -> None:
        """Begins the study anew when its history is long. What was asked for and not told yet is then told as new."""
        if self._num_trials < 2 * self.max_history:
            return
        kept = self._keep(self.study, self.max_history)
        self.study, self._num_trials, self._pending = self._new_study(), 0, {}
        for trial in kept:
            again = self._ask_for(trial.params)
            self.study.tell(again, trial.values)

    def _ask_for(self, params: dict[str, Any]) -> Any:
        self.study.enqueue_trial(params)
        trial = self._ask()
        _ = trial.relative_params  # the sampler is told of a trial when this is read, which fixed parameters do not
        return trial

    def _trial_of(self, arch: Arch) -> Any:
        if self._pending.get(arch):
            trials = self._pending[arch]
            trial = trials.pop()
            if not trials:
                del self._pending[arch]
            return trial
        self._forget()
        return self._ask_for(dict(zip(self.distributions, self.space.encode(arch), strict=True)))

    def observe(self, arch: Arch, values: Values | None) -> None:
        trial = self._trial_of(arch)  # which may begin the study anew
        if values is None:
            self._fail(trial)
        else:
            self.study.tell(trial, list(values))

    def reject(self, arch: Arch) -> None:
        self._fail(self._trial_of(arch))

    def _fail(self, trial: Any) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial, state=TrialState.FAIL)


def best_and_latest(study: Any, count: int) -> list[Any]:
    """What TPE goes on with: a quarter of `count` trials the best, the others the latest."""
    done = _completed(study)
    best = sorted(done, key=lambda trial: -trial.value)[: count // 4]
    latest = done[max(len(done) - (count - len(best)), 0) :]
    return list({trial.number: trial for trial in [*best, *latest]}.values())


def two_generations(study: Any, count: int) -> list[Any]:
    """What NSGA-II goes on with, all that it reads: the present generation, after the parents that it descends from."""
    done = _completed(study)
    if not done:
        return []
    generation = study.sampler.get_trial_generation(study, done[-1])
    parents = study.sampler.get_parent_population(study, generation)
    return [*parents, *study.sampler.get_population(study, generation)]


def _completed(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))


def build_algorithm(settings: SearchSettings, space: Space, seed: int) -> Algorithm:
    rng = random.Random(f"{settings.searcher}/{seed}")
    if settings.searcher == "random":
        return RandomSearch(space, rng)
    if settings.searcher == "exhaustive":
        return ExhaustiveSearch(space)
    if settings.searcher == "evolution":
        return EvolutionSearch(space, rng, settings.population, settings.tournament, settings.crossover)
    from optuna import samplers

    if settings.searcher == "tpe":
        return OptunaSearch(space, samplers.TPESampler(seed=seed), 1, MAX_HISTORY, best_and_latest)
    num_objectives = 2 if settings.objectives == "score_flops" else 1
    nsga2 = samplers.NSGAIISampler(seed=seed, population_size=settings.population)
    return OptunaSearch(space, nsga2, num_objectives, max(MAX_HISTORY, 2 * settings.population), two_generations)


class Sampler:
    """Asks an algorithm until it proposes what is admissible: in budget and never given out before.

    Where an algorithm keeps proposing what is not, mutations of its last proposal are tried, then random draws, and
    where those keep missing too, the rest of the space in its own order, so that every admissible architecture of a
    space is found in the end.
    """

    def __init__(self, algorithm: Algorithm, space: Space, budget: Budget, num_classes: int, seed: int) -> None:
        self.algorithm, self.space, self.budget, self.num_classes = algorithm, space, budget, num_classes
        self.rng = random.Random(f"sampler/{seed}")
        self._seen: set[str] = set()
        self._last: Arch | None = None  # the latest proposal of this ask that was not admissible
        self._rest: Iterator[Arch] | None = None
        self.exhausted = False  # the last ask found nothing

    def replay(self, arch: Arch, values: Values | None) -> None:
        """Tells of an architecture that an earlier run scored; it is not given out again."""
        self._seen.add(self.space.arch_id(arch))
        self.algorithm.observe(arch, values)

    def ask(self) -> Arch | None:
        """A new architecture in budget; None when there are no more, or, in a space too large to enumerate, none that
        MAX_RANDOM_REJECTIONS draws would find.
        """
        self._last = None
        if self._rest is None:
            for propose, reject, tries in self._sources():
                found = self._first_admissible(itertools.islice(iter(propose, None), tries), reject)
                if found is not None:
                    return found
            self._rest = self.space.enumerate() if self.space.size() <= MAX_ENUMERATION else iter(())
        found = self._first_admissible(self._rest, _ignore)
        self.exhausted = found is None
        return found

    def _sources(self) -> Sequence[tuple[Callable[[], Arch | None], Callable[[Arch], None], int]]:
        own = (self.algorithm.propose, self._reject)
        if isinstance(self.algorithm, ExhaustiveSearch):
            return [(*own, self.space.size())]
        if isinstance(self.algorithm, RandomSearch):
            return [(*own, MAX_RANDOM_REJECTIONS)]
        tries = MAX_OPTUNA_REJECTIONS if isinstance(self.algorithm, OptunaSearch) else MAX_REJECTIONS
        draws = (lambda: self.space.sample(self.rng), _ignore, MAX_RANDOM_REJECTIONS)
        return [(*own, tries), (self._neighbour, _ignore, MAX_REJECTIONS), draws]

    def _reject(self, arch: Arch) -> None:
        self._last = arch
        self.algorithm.reject(arch)

    def _neighbour(self) -> Arch | None:
        return None if self._last is None or self.space.size() < 2 else self.space.mutate(self._last, self.rng)

    def _first_admissible(self, archs: Iterator[Arch], reject: Callable[[Arch], None]) -> Arch | None:
        for arch in archs:
            arch_id = self.space.arch_id(arch)
            if arch_id not in self._seen and self.budget.admits(self.space.cost(arch, self.num_classes)):
                self._seen.add(arch_id)
                return arch
            reject(arch)
        return None

    def tell(self, arch: Arch, values: Values | None) -> None:
        """None: could not be scored."""
        self.algorithm.observe(arch, values)


def _ignore(arch: Arch) -> None:
    """Random draws and enumeration are not interested in rejections."""
