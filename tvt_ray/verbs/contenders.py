"""Whom a student has to beat: architectures that people designed, that are larger, or that another score puts first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.rows import Row, verified
from tvt_ray.scoring.scores import MEASURED, score_names
from tvt_ray.verbs.teaching import Teaching
from tvt_ray.verbs.trainings import PLACE, RIVALS_PLACE, check_blocks
from tvt_ray.vits import Arch, Space
from tvt_ray.vits.published import Design, deit_tiny, pit_tiny

STUDENT = "student"


@dataclass(frozen=True)
class Contender:
    """Who is trained: an architecture, and whether it follows the teacher."""

    title: str  # for people
    space: Space
    arch: Arch
    guided: bool = True
    design: str = ""  # tells it apart from an architecture of the run that has the same id

    @property
    def arch_id(self) -> str:
        """Of its architecture."""
        return self.space.arch_id(self.arch)

    @property
    def label(self) -> str:
        """Its trainings' name, but for the seed: contenders that have the same one are one."""
        return f"{self.design}{self.arch_id}{'' if self.guided else '.alone'}"


@dataclass(frozen=True)
class Contest:
    """What baselines are chosen by: the run, and its student."""

    config: RunConfig
    folder: RunFolder
    rows: Sequence[Row]
    row: Row  # the student's
    num_classes: int
    guided: bool  # whether the teacher is followed

    def of_row(self, row: Row, title: str, guided: bool = True) -> Contender:
        """An architecture of the run."""
        space = self.config.space
        return Contender(title, space, space.from_json(verified(row, space).arch), guided)


Choose: TypeAlias = Callable[[Contest], Contender | str]  # a contender, or why there is none


def alone(contest: Contest) -> Contender | str:
    """The student without the teacher."""
    if not contest.guided:
        return "the student without the teacher: it does not follow one"
    return contest.of_row(contest.row, "the student without the teacher", guided=False)


def largest(contest: Contest) -> Contender | str:
    """The row of most parameters within the budget."""
    read = [row for row in contest.rows if row.status == "ok" and contest.config.budget.admits(row.params, row.flops)]
    most = max(read, key=lambda row: (row.params, row.arch_id), default=contest.row)
    if most.shape == contest.row.shape:
        return "the largest within the budget: it is the student"
    return contest.of_row(most, "the largest within the budget")


def deit(contest: Contest) -> Contender | str:
    """DeiT-Ti's shape at the student's size."""
    return _published(contest, deit_tiny, "DeiT-Ti's shape")


def pit(contest: Contest) -> Contender | str:
    """PiT-Ti's shape at the student's size."""
    return _published(contest, pit_tiny, "PiT-Ti's shape")


def unrefined(contest: Contest) -> Contender | str:
    """Whom the score that needs no training put first, where measurements rank the run."""
    if contest.config.score.name != MEASURED:
        return "the first before refine: the run was not refined"
    return first_by(contest.config.score.zero_cost)(contest)


def first_by(score: str) -> Choose:
    """Whom a score puts first."""

    def choose(contest: Contest) -> Contender | str:
        title = f"the first by {score}"
        first = contest.folder.ranking(contest.config.score.named(score), contest.rows).top(1)
        if not first:
            return f"{title}: it ranks none of the rows"
        if first[0].row.shape == contest.row.shape:
            return f"{title}: it is the student, or one of its shape"
        return contest.of_row(first[0].row, title)

    return choose


# Adding one is a function and a row; the name of a score stands for whom it puts first.
BASELINES: dict[str, Choose] = {
    "alone": alone,
    "largest": largest,
    "deit": deit,
    "pit": pit,
    "unrefined": unrefined,
}


def _published(contest: Contest, design: Callable[[int, int, int], Design], title: str) -> Contender:
    made = design(contest.config.space.image_size, contest.num_classes, contest.row.params)
    return Contender(title, made.space, made.arch, design=f"{design.__name__}.")


def check_names(names: Sequence[str]) -> None:
    """Raises UsageError for a name that is neither a baseline's nor a score's."""
    choices = [*BASELINES, *score_names()]
    for name in names:
        if name not in choices:
            raise UsageError(f"unknown baseline {name!r}; choices: {', '.join(choices)}")


def choose_contenders(contest: Contest, names: Sequence[str]) -> tuple[dict[str, Contender], tuple[str, ...]]:
    """The student and its rivals by name, and who is left out and why."""
    found: dict[str, Contender] = {STUDENT: contest.of_row(contest.row, "the student")}
    left_out = []
    for name in dict.fromkeys(names):
        chosen = (BASELINES.get(name) or first_by(name))(contest)
        if isinstance(chosen, str):
            left_out.append(chosen)
        else:
            check_blocks(chosen.space.num_blocks(chosen.arch), contest.config.distill.loss)
            found[name] = chosen
    return found, tuple(left_out)


def place_of(contender: Contender, contest: Contest, seed: int) -> str:
    """In the run folder. The student is where distil would have it; rivals of one architecture share a training."""
    if contender.label == contest.row.arch_id and seed == contest.config.distill.seed:
        return f"{PLACE}/{contender.arch_id}"
    return f"{RIVALS_PLACE}/{contender.label}.seed{seed}"


def task_of(contender: Contender, teaching: Teaching, seed: int) -> DistillTask:
    """Its training."""
    settings = teaching.settings.with_(seed=seed)
    if not contender.guided:
        settings = settings.with_(loss=settings.loss.alone())
    space, plugins = contender.space, teaching.config.plugins
    return DistillTask(space, contender.arch, teaching.data.num_classes, settings, plugins, contender.label)
