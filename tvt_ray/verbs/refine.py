"""Refine: a few students are trained shortly, to learn what this dataset rewards, and all rows are ranked anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvt_ray.cluster.cohorts import CohortPool
from tvt_ray.cluster.slots import wait_for_gpus
from tvt_ray.data.transforms import check_augmentation
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import Meter, say
from tvt_ray.refining.choice import Candidates, by_draws, spread
from tvt_ray.refining.halving import Halving, Measured, Training, next_round_size
from tvt_ray.refining.learned import POINTS, Learned, Measurement, choose_recipe
from tvt_ray.runs.config import difference
from tvt_ray.runs.folder import NUM_LISTED
from tvt_ray.runs.identity import Rounds
from tvt_ray.runs.resuming import resume_command
from tvt_ray.runs.run import Run
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.scoring.rows import arch_of, verified
from tvt_ray.scoring.scores import MEASURED
from tvt_ray.storage.records import RecordWriter
from tvt_ray.verbs.init import check_init, check_start
from tvt_ray.verbs.report import write_order
from tvt_ray.verbs.session import Changes, Session, session_of
from tvt_ray.verbs.trainings import Teaching

MARGIN = 0.5  # percentage points that are worth another choice


@dataclass(frozen=True)
class Refined:
    """One of the best, as `refine --json` lists it. Accuracies are of validation, top-1, in percent."""

    arch_id: str
    predicted_acc: float | None  # after the last rung; None where too few were measured to predict
    interval: tuple[float, float] | None  # 90 %
    measured_acc: float | None  # None: it was not trained
    epochs: int  # that it was trained for
    params: int


@dataclass(frozen=True)
class Smallest:
    """The cheapest student that is most likely about as good as the first, as `refine --json` lists it."""

    arch_id: str
    params: int
    latency_ms: float | None  # as predicted, by which it was chosen; None: by parameters
    predicted_acc: float
    within: float  # percentage points of the first,
    chance: float  # with this probability
    sentence: str  # the same in words


@dataclass(frozen=True)
class RefineSummary:
    """What a refinement did: what `refine --json` prints."""

    run_dir: str
    num_students: int  # that were trained
    epochs_spent: int  # over all of them, by this call and those before
    rungs: tuple[int, ...]  # epochs after which students were compared
    epochs: int  # of a whole training
    best: tuple[Refined, ...]
    lessons: tuple[str, ...]  # what this dataset rewards, in words
    sure_of_first: float | None  # the chance that the first ends above the second
    more_would_change: float | None  # the chance that another of the best is better by MARGIN points or more
    smallest: Smallest | None  # None where too few were measured to predict


def refine(
    run: Session | Run | str | Path,
    *,
    num_students: int | None = None,
    within: float = POINTS,
    settings: Changes = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> RefineSummary:
    """Trains `num_students` of a run shortly, as cohorts on Ray, and ranks all rows by what they teach.

    Afterwards `run.ranking()` is by predicted accuracy. `settings`: changes the run's own, as in
    {"refine": {"rounds": 3}}, or is another config. `within`: percentage points that the smallest student which is
    told of may be worse than the best. `resume`: goes on with what an earlier call began; more students
    become more rounds. Raises UsageError for what is wrong beforehand, RunError where trainings could not finish;
    measurements are on disk either way.
    """
    check_points(within)
    with session_of(run, settings, resume, ray_address) as session:
        if num_students is not None:
            session.config = session.config.with_(refine={"num_students": num_students})
        _check(session)
        _ = session.lock
        check_init(session.init, session.config, session.rows)
        if session.init is not None:
            say(f"init: students begin with weights of {session.init.describe()}")
        session.keep_images()
        refining = _Refining(session, within)
        if refining.next_work():
            command = resume_command(session.folder.path, "tvt refine", "", session.config.plugins, session.ray_address)
            try:
                refining.run(command)
            except RunError as error:
                raise RunError(f"{error}; go on with: {command}") from None
        return refining.conclude()


def _check(session: Session) -> None:
    """What can be found out before anything is read or started."""
    config, folder = session.config, session.folder
    changed = difference(config, folder.config())
    if changed:
        raise UsageError(f"{folder.path} holds another run: {changed}")
    if folder.rounds_file.is_file() and not session.resume:
        raise UsageError(
            f"{folder.path} was refined before, or begun to be; --resume goes on with it, more students are "
            f"--resume with a larger --num-students; or move {folder.rounds_file} away"
        )
    check_augmentation(config.distill.augment)
    check_start(config)
    try:
        config.refine.rungs_of(config.distill.epochs)
    except ValueError as error:
        raise UsageError(f"config {error}") from None


class _Refining:
    """A run's rounds: who was chosen, what was measured, what comes next."""

    def __init__(self, session: Session, within: float) -> None:
        self.within = within
        self.session, self.teaching, self.lock = session, Teaching(session, learn_from="train"), session.lock
        config, folder = self.config, self.folder = session.config, session.folder
        settings, epochs, seed = config.refine, config.distill.epochs, config.distill.seed
        self.halving = Halving.of(settings, epochs, seed)
        fresh = Rounds(self.teaching.recipe, epochs, seed, self.halving.rungs)
        self.rounds = self._go_on_with(fresh)
        self.rows = {row.arch_id: row for row in session.rows}
        zero_cost = config.score.named(config.score.zero_cost)
        self.prior = folder.ranking(zero_cost, list(self.rows.values())) if self.rows else Ranking(zero_cost.name, ())
        if not self.prior.scored:
            raise UsageError(f"run {folder.path} has no scored architectures to refine")
        self.measurements = {_key(each): each for each in folder.measurements().read()}

    def _go_on_with(self, fresh: Rounds) -> Rounds:
        stored = Rounds.load(self.folder.rounds_file)
        changed = stored and fresh.difference(stored)
        if changed:
            raise UsageError(f"{self.folder.rounds_file} was begun with {changed}; move it away to refine anew")
        return stored or fresh

    @property
    def measured(self) -> Measured:
        """Accuracies by the present recipe."""
        own = (each for each in self.measurements.values() if each.recipe == self.rounds.recipe)
        return {(each.arch_id, each.seed, each.epochs): each.val_acc for each in own}

    def next_work(self) -> list[Training]:
        """What is to be trained next; begins a round where the one before is over. Empty: all is done."""
        todo = self.halving.missing(self.rounds.students, self.measured)
        if todo:
            return todo
        size = next_round_size(self.config.refine, self.halving, [len(each) for each in self.rounds.students])
        chosen = self._choose(size) if size else []
        if not chosen:
            return []
        self.rounds = self.rounds.followed_by(tuple(chosen))
        self.lock.check()
        self.rounds.save(self.folder.rounds_file)
        return self.halving.missing(self.rounds.students, self.measured)

    def _choose(self, count: int) -> list[str]:
        """Students of the next round, by what is known now."""
        learned, rng = self.learned(), np.random.default_rng([self.config.seed, len(self.rounds.students)])
        taken = [self.rows[arch_id].shape for arch_id in self.rounds.chosen if arch_id in self.rows]
        rows = [each.row for each in learned.entries]
        if learned.prediction is None:
            shapes, params = [row.shape for row in rows], [row.params for row in rows]
            chosen = spread(Candidates(shapes, params, learned.features.values, learned.scores), count, taken, rng)
        else:
            chosen = by_draws([row.shape for row in rows], learned.prediction.draws(rng, count), taken)
        return [verified(rows[index], self.config.space).arch_id for index in chosen]

    def learned(self) -> Learned:
        """From all that was measured by the present recipe."""
        own = choose_recipe(list(self.measurements.values()), self.rounds.recipe)
        return Learned(self.prior, self.config.space, own, self.rounds.rungs)

    def run(self, resume_command: str) -> None:
        """Trains until nothing is left to train."""
        config = self.config
        settings, plugins = config.refine, config.plugins
        self.session.join_ray(resume_command)
        with RecordWriter(self.folder.measurements(), self.lock.check) as writer:
            wait_for_gpus(config.cluster.min_gpus, config.cluster.gpu_timeout_s)
            inputs, states = self.teaching.inputs(), self.folder.refine_folder
            a_round = max(map(len, self.rounds.students), default=1)
            with CohortPool(inputs, states, config.cluster, a_round, settings.cohort_size, plugins) as pool:
                while todo := self.next_work():
                    self._train(todo, pool, writer)

    def _train(self, todo: Sequence[Training], pool: CohortPool, writer: RecordWriter[Measurement]) -> None:
        """To a rung, all of them."""
        epochs, number = todo[0].epochs, len(self.rounds.students)
        tasks = [self.teaching.task(self.rows[each.arch_id], each.seed) for each in todo]
        behind = {(each.arch_id, each.seed): self._epochs_of(each.arch_id, each.seed) for each in todo}
        title = f"refining, round {number}, to epoch {epochs}"
        with Meter(title, len(todo) * epochs, "epochs", sum(min(done, epochs) for done in behind.values())) as meter:

            def keep(task: DistillTask, epoch: Mapping[str, float]) -> None:
                self.teaching.tell_of_imbalance(epoch)
                measurement = self.teaching.measurement(task, epoch)
                if _key(measurement) not in self.measurements:
                    self.measurements[_key(measurement)] = measurement
                    writer.put([measurement])

            pool.train(tasks, epochs, meter, keep)

    def _epochs_of(self, arch_id: str, seed: int) -> int:
        return max((e for (a, s, e) in self.measured if (a, s) == (arch_id, seed)), default=0)

    def conclude(self) -> RefineSummary:
        """Ranks, and writes top list and report; from here on, measurements rank the run."""
        self.lock.check()
        self.folder.measurements().compact()
        self.session.config = self.config.ranked_by(MEASURED)
        write_order(self.folder, self.session.config, list(self.rows.values()))
        learned = self.learned()
        trained = {(arch_id, seed) for arch_id, seed, _ in self.measured if arch_id in set(self.rounds.chosen)}
        spent = sum(min(self._epochs_of(*each), self.rounds.rungs[-1]) for each in trained)
        return RefineSummary(
            run_dir=str(self.folder.path),
            num_students=len(self.rounds.chosen),
            epochs_spent=spent,
            rungs=self.rounds.rungs,
            epochs=self.config.distill.epochs,
            best=best_of(learned, NUM_LISTED),
            lessons=tuple(lesson.sentence() for lesson in learned.prediction.lessons) if learned.prediction else (),
            sure_of_first=_sure_of_first(learned),
            more_would_change=self._more_would_change(learned),
            smallest=smallest_of(self.session, learned, self.within),
        )

    def _more_would_change(self, learned: Learned) -> float | None:
        """Among the best that are listed: over all rows, one of thousands is always better by luck."""
        if learned.prediction is None:
            return None
        among = [learned.index[each.row.arch_id] for each in learned.ranking.top(NUM_LISTED)]
        rng = np.random.default_rng(self.config.seed)
        return round(learned.prediction.chance_that_more_changes(rng, margin=MARGIN, among=among), 3)


def check_points(within: float) -> None:
    """Raises UsageError for percentage points that are none."""
    if not 0 <= within < 100:
        raise UsageError(f"--within is a number of percentage points, at least 0; got {within:g}")


def smallest_of(session: Session, learned: Learned, within: float) -> Smallest | None:
    """By predicted latency where the run limits it, else by parameters. None where too few were measured."""
    space = session.config.space
    latency_ms = session.limits.latency_ms if session.profile is not None else None
    costs = latency_ms and np.array([latency_ms(arch_of(each.row, space)) for each in learned.entries])
    found = learned.as_good(within, costs, session.config.seed)
    if found is None:
        return None
    row = verified(found.entry.row, space)
    return Smallest(
        row.arch_id,
        row.params,
        round(latency_ms(arch_of(row, space)), 4) if latency_ms else None,
        round(found.entry.score, 2),
        within,
        round(found.chance, 3),
        found.sentence(),
    )


def best_of(learned: Learned, count: int) -> tuple[Refined, ...]:
    """The first of the ranking, with what is known of each."""
    interval = learned.prediction.interval() if learned.prediction else None
    best = []
    for each in learned.ranking.top(count):
        index, last = learned.index[each.row.arch_id], learned.last_measured(each.row.arch_id)
        best.append(
            Refined(
                each.row.arch_id,
                round(each.score, 2) if interval else None,
                (round(float(interval[0][index]), 2), round(float(interval[1][index]), 2)) if interval else None,
                last.val_acc if last else None,
                last.epochs if last else 0,
                each.row.params,
            )
        )
    return tuple(best)


def _sure_of_first(learned: Learned) -> float | None:
    first_two = [learned.index[each.row.arch_id] for each in learned.ranking.top(2)]
    if learned.prediction is None or len(first_two) < 2:
        return None
    return round(float(learned.prediction.sure_of(*first_two)), 3)


def _key(each: Measurement) -> tuple[str, int, int, str]:
    return each.arch_id, each.seed, each.epochs, each.recipe
