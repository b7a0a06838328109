"""Compare: a student beside what it has to beat, trained by the same recipe, and a verdict in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tvt_ray.data.splits import Dataset
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.progress import say
from tvt_ray.quality.comparison import Comparison, Hits, Rival, rival, to_json, verdict
from tvt_ray.quality.evaluation import probabilities_of
from tvt_ray.quality.statistics import majority_of
from tvt_ray.report.comparison_page import comparison_page
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.resuming import distill_command
from tvt_ray.runs.run import Run, TrainedStudent
from tvt_ray.scoring.rows import Row, verified
from tvt_ray.scoring.scores import MEASURED, score_names
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.verbs.distill import check_distill, choose_rows
from tvt_ray.verbs.init import begin_as_they_can, check_init, tell_of_init
from tvt_ray.verbs.report import settle_score
from tvt_ray.verbs.session import Changes, Session, session_of
from tvt_ray.verbs.trainings import PLACE, RIVALS_PLACE, Teaching, Trainings, check_blocks, check_student_folder
from tvt_ray.vits import Arch, Space
from tvt_ray.vits.published import Design, deit_tiny, pit_tiny
from tvt_ray.vits.stems import MOST_STAGES, STAGES
from tvt_ray.vits.trunks import num_stages_of, trunk_facts

PAGE_FILE, JSON_FILE = "baselines.html", "baselines.json"
STUDENT = "student"


def compare(
    run: Session | Run | str | Path,
    *,
    baselines: Sequence[str] | None = None,
    num_seeds: int = 1,
    arch_id: str | None = None,
    arch_file: Path | None = None,
    settings: Changes = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> Comparison:
    """Trains a run's best student, or the one with `arch_id` or of a file, and its rivals: who is better.

    `baselines`: names of the table BASELINES (None: all of it), or of scores for whom they put first. `num_seeds`: of
    each. All have one recipe and learn side by side. The student is run_dir/distill/<arch_id>, with other seeds it is
    below run_dir/baselines/, as its rivals are. `resume`: a student that is trained already is kept. Writes
    baselines.json and baselines.html. Raises UsageError for what is wrong beforehand, RunError as distil does.
    """
    baselines = list(BASELINES) if baselines is None else baselines
    check_names(baselines)
    if num_seeds < 1:
        raise UsageError(f"--seeds is at least 1; got {num_seeds}")
    with session_of(run, settings, resume, ray_address) as session:
        config, folder = session.config, session.folder
        check_distill(config, folder)
        _ = session.lock, session.init
        settle_score(session)
        row = choose_rows(session, 1, arch_id, arch_file)[0]
        check_student_folder(folder.distill_folder / row.arch_id, session)
        check_init(session.init, config, [row])
        check_blocks(row.depth, config.distill.loss)
        session.keep_images()
        race = _Race(session, row, baselines, num_seeds)
        for place in race.tasks:
            check_student_folder(folder.path / place, session)
        say(f"baselines: {len(race.contenders)} students with {num_seeds} seeds are {len(race.tasks)} trainings")
        tell_of_init(race.teaching.init, [race.tasks[f"{PLACE}/{row.arch_id}"]])
        beside = f" --baselines {','.join(baselines)} --seeds {num_seeds}"
        command = distill_command(folder.path, None, arch_id, arch_file, beside, config.plugins, session.ray_address)
        Trainings(session, race.teaching, race.tasks).run(command)
        found = race.compare()
    write_atomically(folder.path / PAGE_FILE, comparison_page(found))
    write_atomically(folder.path / JSON_FILE, json.dumps(to_json(found), indent=1).encode())
    return found


class _Race:
    """The student and its rivals, what each trains, and how they end."""

    def __init__(self, session: Session, row: Row, names: Sequence[str], num_seeds: int) -> None:
        self.folder, self.row, self.teaching = session.folder, row, Teaching(session)
        config, teaching = session.config, self.teaching
        self.num_classes, first = session.data.num_classes, config.distill.seed
        contest = Contest(config, self.folder, session.rows, row, self.num_classes, teaching.guided)
        self.contenders, self.left_out = choose_contenders(contest, names)
        self.seeds = tuple(range(first, first + num_seeds))
        self.places = {name: [place_of(each, contest, s) for s in self.seeds] for name, each in self.contenders.items()}
        tasks = {
            place: _task_of(each, teaching, seed)
            for name, each in self.contenders.items()
            for place, seed in zip(self.places[name], self.seeds, strict=True)
        }
        self.tasks: dict[str, DistillTask] = begin_as_they_can(teaching.init, tasks)

    def compare(self) -> Comparison:
        """All of them on the test split."""
        data, teaching, path = self.teaching.data, self.teaching, self.folder.path
        read = {place: hits_of(path / place, data) for place in self.tasks}
        hits = {name: np.stack([read[place] for place in places]) for name, places in self.places.items()}
        rivals = tuple(self._rival(name, each, hits) for name, each in self.contenders.items())
        majority, majority_class = majority_of(data.test.labels, data.class_names)
        trained = TrainedStudent.read(self.folder.distill_folder / self.row.arch_id)
        return Comparison(
            dataset=data.name,
            num_images=len(data.test),
            seeds=self.seeds,
            epochs=trained.epochs,
            majority=majority,
            majority_class=majority_class,
            teacher=teaching.teacher.name,
            teacher_acc=trained.teacher_test_acc,
            rivals=rivals,
            left_out=self.left_out,
            verdict=verdict(rivals, len(self.seeds), len(data.test)),
            page=str(path / PAGE_FILE),
            file=str(path / JSON_FILE),
        )

    def _rival(self, name: str, each: Contender, hits: Mapping[str, Hits]) -> Rival:
        params = each.space.cost(each.arch, self.num_classes).params
        student = None if name == STUDENT else hits[STUDENT]
        path = str(self.folder.path / self.places[name][0])
        return rival(name, each.title, each.arch_id, params, path, hits[name], student)


def hits_of(path: Location, data: Dataset) -> Hits:
    """(test images,): whether the student in a folder names each right."""
    student = load_student(path)
    probabilities = probabilities_of(student, data.test, student.image_size)
    hits: Hits = probabilities.argmax(1) == data.test.labels
    return hits


@dataclass(frozen=True)
class Contender:
    """Who is trained: an architecture, and whether it follows the teacher."""

    title: str  # for people
    space: Space
    arch: Arch
    guided: bool = True
    design: str = ""  # tells it apart from an architecture of the run that has the same id
    drawn: bool = False  # whether its stem's stages begin with drawn weights, where others inherit them

    @property
    def arch_id(self) -> str:
        """The id of its architecture."""
        return self.space.arch_id(self.arch)

    @property
    def label(self) -> str:
        """Its trainings' name, but for the seed: contenders that have the same one are one."""
        return f"{self.design}{self.arch_id}{'' if self.guided else '.alone'}{'.drawn' if self.drawn else ''}"


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
        """An architecture of the run, as a contender."""
        space = self.config.space
        return Contender(title, space, space.from_json(verified(row, space).arch), guided)


Choose: TypeAlias = Callable[[Contest], Contender | str]  # a contender, or why there is none


def alone(contest: Contest) -> Contender | str:
    """The student without the teacher."""
    if not contest.guided:
        return "the student without the teacher: it does not follow one"
    return contest.of_row(contest.row, "the student without the teacher", guided=False)


def from_chance(contest: Contest) -> Contender | str:
    """The student with drawn weights, by the same recipe."""
    title = "the student from drawn weights"
    found = contest.of_row(contest.row, title)
    if not STAGES.fullmatch(getattr(found.arch, "stem", "")) or contest.config.distill.stem == "drawn":
        return f"{title}: it inherits none"
    return dataclasses.replace(found, drawn=True)


def without_blocks(contest: Contest) -> Contender | str:
    """The student's stages with a head on their pooled map: what the ViT's blocks add is what the student is ahead."""
    title, arch = "the student without its blocks", contest.of_row(contest.row, "").arch
    stem = getattr(arch, "stem", "")
    if not STAGES.fullmatch(stem):
        return f"{title}: it does not begin with stages of a ConvNet"
    return _without_blocks(contest, title, stem, arch.patch_size, arch.embed_dim)  # type: ignore[attr-defined]


def whole_teacher(contest: Contest) -> Contender | str:
    """All stages of the ConvNet that the student begins with, taught on by the same recipe."""
    title, space = "all of the teacher's stages, taught on", contest.config.space
    backbone = getattr(space, "backbone", None)
    if backbone is None:
        return f"{title}: students do not begin with stages of a ConvNet"
    number = num_stages_of(backbone)
    stride = trunk_facts(backbone, number).stride
    if number > MOST_STAGES or space.image_size % stride:
        return f"{title}: {backbone} has {number} stages, and a place every {stride} pixels"
    return _without_blocks(contest, title, f"stage{number}", stride, max(space.embed_dim))  # type: ignore[attr-defined]


def _without_blocks(contest: Contest, title: str, stem: str, patch_size: int, width: int) -> Contender:
    changes = {"depth": [0], "stem": [stem], "patch_size": [patch_size], "embed_dim": [width], "pool": ["mean"]}
    space = contest.config.space.with_(changes)
    return Contender(title, space, next(space.enumerate()), design=f"{stem}.")


def largest(contest: Contest) -> Contender | str:
    """The row of most parameters within the budget."""
    return _by_params(contest, -1, "the largest within the budget")


def middle(contest: Contest) -> Contender | str:
    """The row whose parameters are the median of those within the budget: who chooses nothing ends there."""
    return _by_params(contest, None, "the middle of the space")


def _by_params(contest: Contest, place: int | None, title: str) -> Contender | str:
    """At a place among the rows within the budget, sorted by parameters; None: in their middle."""
    read = [row for row in contest.rows if row.status == "ok" and contest.config.budget.admits(row.params, row.flops)]
    read = sorted(read, key=lambda row: (row.params, row.arch_id)) or [contest.row]
    found = read[len(read) // 2 if place is None else place]
    return f"{title}: it is the student" if found.shape == contest.row.shape else contest.of_row(found, title)


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
    "drawn": from_chance,
    "blockless": without_blocks,
    "whole": whole_teacher,
    "largest": largest,
    "middle": middle,
    "deit": lambda contest: _published(contest, deit_tiny, "DeiT-Ti's shape"),
    "pit": lambda contest: _published(contest, pit_tiny, "PiT-Ti's shape"),
    "unrefined": unrefined,
}


def _published(contest: Contest, design: Callable[[int, int, int], Design], title: str) -> Contender:
    """A design that people published, at the student's size."""
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


def _task_of(contender: Contender, teaching: Teaching, seed: int) -> DistillTask:
    settings = teaching.settings.with_(seed=seed)
    if not contender.guided:
        settings = settings.with_(loss=settings.loss.alone())
    if contender.drawn:
        settings = settings.with_(stem="drawn", stem_frozen_epochs=0)
    space, plugins = contender.space, teaching.config.plugins
    return DistillTask(space, contender.arch, teaching.data.num_classes, settings, plugins, contender.label)
