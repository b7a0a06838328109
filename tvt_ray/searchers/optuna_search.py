"""Optuna's samplers over a space's fixed-length encoding."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from tvt_ray.searchers.protocol import Values
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits import Arch, Space

MAX_HISTORY = 500  # trials that an Optuna sampler keeps; its study holds at most twice as many


class OptunaSearch:
    """An Optuna sampler over the space's fixed-length encoding (Akiba et al. 2019; TPE, NSGA-II).

    A proposal costs Optuna time that grows with its history (TPE: 20 ms after 500 trials, 113 ms after 5,000), so the
    study is begun anew once it has twice `max_history` trials, with those that `keep` chooses of it. Optuna has no
    notion of an architecture that must not repeat, so rejected proposals are told as failed trials. What the sampler
    did not propose to this study (a resumed run's rows, the random fallback, what is kept) is enqueued and asked for,
    which gives such trials all that a sampler keeps on its own (NSGA-II's generations).
    """

    # A proposal of Optuna's costs tens of milliseconds once its history is long, so it gets few.
    patience, reaches_all = 4, False

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
        """What the sampler suggests."""
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
        """Tells the study, which is asked for the trial first where it did not propose it."""
        from optuna.trial import TrialState

        trial = self._trial_of(arch)  # which may begin the study anew
        if values is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, list(values))

    def reject(self, arch: Arch) -> None:
        """Tells the study of a failed trial."""
        self.observe(arch, None)


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


def build_tpe(settings: SearchSettings, space: Space, seed: int) -> OptunaSearch:
    """TPE of Bergstra et al. 2011, in Optuna's form."""
    from optuna import samplers

    return OptunaSearch(space, samplers.TPESampler(seed=seed), 1, MAX_HISTORY, best_and_latest)


def build_nsga2(settings: SearchSettings, space: Space, seed: int) -> OptunaSearch:
    """NSGA-II of Deb et al. 2002, in Optuna's form."""
    from optuna import samplers

    sampler = samplers.NSGAIISampler(seed=seed, population_size=settings.population)
    history = max(MAX_HISTORY, 2 * settings.population)
    return OptunaSearch(space, sampler, settings.num_objectives, history, two_generations)
