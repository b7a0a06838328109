"""Students as verbs train them: what all of them learn from, what each goes on from, and what is kept of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tvt_ray.cluster.board import STATE_FILE
from tvt_ray.cluster.cohorts import state_name
from tvt_ray.cluster.slots import allot, wait_for_gpus
from tvt_ray.cluster.training import Trained, train_students
from tvt_ray.data.splits import Dataset, joined
from tvt_ray.distillation.cohort import DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.losses import LossSettings, guided_blocks
from tvt_ray.distillation.settings import DistillSettings, LearnFrom
from tvt_ray.errors import RunError, UsageError
from tvt_ray.exports import StudentCard, write_trained
from tvt_ray.exports.folder import ARCH_FILE, Origin, public_name
from tvt_ray.progress import say
from tvt_ray.refining.learned import Measurement
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import Rounds
from tvt_ray.scoring.rows import Row
from tvt_ray.storage.locations import Location, first_line, write_atomically
from tvt_ray.storage.records import RecordWriter
from tvt_ray.strict import parse_json
from tvt_ray.teachers.timm_cnn import PREFIX
from tvt_ray.teachers.training import Verdict, teacher_accuracy
from tvt_ray.verbs.provenance import origins_of, versions
from tvt_ray.verbs.session import Session
from tvt_ray.vits.weight_source import Source

DWARFS = 10  # times the cross-entropy: guidance that drowns it
SETTINGS_FILE = "distill.json"
PLACE, RIVALS_PLACE = "distill", "baselines"  # folders of the run's, with a folder for each student


class Teaching:
    """What students of a session learn from: images, teacher and whether it is followed, weights to begin with."""

    def __init__(self, session: Session, learn_from: LearnFrom | None = None) -> None:
        """Trains the teacher where there is none. `learn_from`: instead of the setting."""
        config, self.data, self.teacher = session.config, session.data, session.teacher
        if learn_from is not None:
            config = config.with_(distill={"learn_from": learn_from})
        self.config, self._named = config, session.init
        self.init = None if session.init is None else session.init.of_classes(self.data.class_names)
        self.settings = guided_or_not(config.distill, session.verdict, self.teacher.name)
        self.begun_with = settings_of(config.distill, session.init)
        self._recipes = dict[tuple[bool, bool], str]()
        self.imbalance_told = False

    def _recipe(self, alone: bool, drawn: bool) -> str:
        """Of who learns without the teacher, of who begins with what is drawn, both or neither: hashed when asked for,
        since each reads the dataset's fingerprint.
        """
        if (alone, drawn) not in self._recipes:
            changes = {**({"guided": "never"} if alone else {}), **({"init": None} if drawn else {})}
            config = self.config.with_(distill=changes)
            self._recipes[alone, drawn] = recipe_of(config, self.data, None if drawn else self._named)
        return self._recipes[alone, drawn]

    @property
    def recipe(self) -> str:
        """By which the config has its students learn."""
        return self._recipe(alone=False, drawn=False)

    def inputs(self) -> DistillInputs:
        """As workers on other machines need them."""
        data, both = self.data, self.settings.learn_from == "train and val"
        train = joined(data.train, data.val) if both else data.train.portable()
        return DistillInputs(train, data.val.portable(), data.test.portable(), self.teacher, self.init)

    def task(self, row: Row, seed: int | None = None) -> DistillTask:
        """A row's training, by the settings' seed or another."""
        space, settings = self.config.space, self.settings
        if seed is not None:
            settings = settings.with_(seed=seed)
        return DistillTask(space, space.from_json(row.arch), self.data.num_classes, settings, self.config.plugins)

    @property
    def guided(self) -> bool:
        """Whether students follow the teacher, unless they are told not to."""
        return self.settings.loss.follow_teacher

    def measurement(self, task: DistillTask, epoch: Mapping[str, float]) -> Measurement:
        """What an epoch of a student says."""
        epochs, seed = int(epoch["epoch"]), task.settings.seed
        return Measurement(task.arch_id, epochs, seed, epoch["val_acc"], epoch["seconds"], self.recipe_for(task))

    def recipe_for(self, task: DistillTask) -> str:
        """As the settings say, or of who learns alone where others follow, or begins with what is drawn."""
        alone, drawn = task.settings.loss != self.settings.loss, task.settings.init != self.settings.init
        return self._recipe(alone, drawn)

    def told_recipe(self, task: DistillTask) -> Mapping[str, Any]:
        """Its settings without places: of weights to begin with that lie on a disk, what identifies them."""
        settings = task.settings.model_dump(mode="json")
        lies_somewhere = task.settings.init is not None and not task.settings.init.startswith(PREFIX)
        return {**settings, "init": self.begun_with["init"]} if lies_somewhere else settings

    def tell_of_imbalance(self, epoch: Mapping[str, float]) -> None:
        """Once, where the weighted guidance is many times the cross-entropy, which then teaches little."""
        loss = self.settings.loss
        both = loss.terms.keys() & epoch.keys() & {"guidance", "cross_entropy"}  # who learns alone has no guidance
        if self.imbalance_told or loss.guidance_limit or len(both) < 2:
            return
        guidance, entropy = (loss.terms[name] * epoch[name] for name in ("guidance", "cross_entropy"))
        if guidance > DWARFS * entropy:
            self.imbalance_told = True
            say(
                f"guidance is {guidance:.3g} beside a cross-entropy of {entropy:.3g}, and dwarfs it: "
                "distill.loss.guidance_limit=1 would bound it"
            )


def guided_or_not(settings: DistillSettings, verdict: Verdict, name: str) -> DistillSettings:
    """The settings without the terms that follow the teacher, where they say so or the teacher is not worth it."""
    if settings.guided == "never":
        return settings.with_(loss=settings.loss.alone())
    if verdict.worth_following or not settings.loss.follow_teacher:
        return settings
    if settings.guided == "always":
        say(f"teacher: {name} is followed, though {verdict.sentence()}")
        return settings
    say(
        f"teacher: {name} is not followed: {verdict.sentence()}; students learn from labels alone "
        "(distill.guided=always follows it, a better one comes with --teacher-weights or longer teacher_training)"
    )
    return settings.with_(loss=settings.loss.alone())


def recipe_of(config: RunConfig, data: Dataset, init: Source | None = None) -> str:
    """A hash of all that a student's accuracy depends on beside architecture and seed: recipe, teacher and data.

    `init`: the weights that students begin with, which count by their content.
    """
    distill = {**config.distill.identifying(), **_named(init)}
    del distill["seed"]  # which stands in each measurement
    teacher, teaching = config.teacher.identifying(), config.teacher_training.identifying()
    sections = {"teacher": teacher, "teacher_training": teaching, "distill": distill}
    text = json.dumps({**sections, "fingerprint": data.fingerprint()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def settings_of(settings: DistillSettings, init: Source | None) -> dict[str, Any]:
    """The settings as JSON, where `init` is what was read, not where from: two places of one content are the same."""
    return {**settings.model_dump(mode="json"), **_named(init)}


def _named(init: Source | None) -> dict[str, str]:
    return {} if init is None else {"init": f"weights {init.digest}"}


class Trainings:
    """The students of one call, each by its place in the run folder, as in distill/<arch_id>."""

    def __init__(self, session: Session, teaching: Teaching, tasks: Mapping[str, DistillTask]) -> None:
        self.session, self.folder, self.teaching, self.tasks = session, session.folder, teaching, tasks
        self.config, self.data = session.config, session.data
        self.writer: RecordWriter[Measurement]
        self.origins: Mapping[str, Origin] = {}

    def run(self, resume_command: str) -> None:
        """Trains those that are not finished, on the cluster. `resume_command`: what goes on with it.

        Raises RunError where one could not finish; what was done is on disk either way.
        """
        left = {place: task for place, task in self.tasks.items() if not is_finished(self.folder.path / place)}
        if not left:
            return
        self._measure_teacher()
        self.origins = self._origins(left)
        try:
            with RecordWriter(self.folder.measurements(), self.session.lock.check) as self.writer:
                self._train(left, resume_command)
        except RunError as error:
            raise RunError(f"{error}; go on with: {resume_command}") from None
        self.folder.measurements().compact()

    def _measure_teacher(self) -> None:
        teacher, size = self.teaching.teacher, self.config.space.image_size
        self.teacher_test_acc = 100 * float(self.session.teacher_hits.mean())
        own = size == teacher.image_size
        self.at_student = self.teacher_test_acc if own else teacher_accuracy(teacher, self.data.test, size)
        say(f"teacher: {teacher.name} reaches {self.teacher_test_acc:.2f} % on the test split")

    def _origins(self, left: Mapping[str, DistillTask]) -> Mapping[str, Origin]:
        """How they came about. Taken before measurements are added, which may be what they were chosen by."""
        config, trainings = self.config, {}
        for place, task in left.items():
            arch_id = task.arch_id if task.space == config.space else ""  # of which the run has none
            trainings[place] = arch_id, self.teaching.told_recipe(task)
        return origins_of(self.folder, config, trainings, versions())

    def _train(self, left: Mapping[str, DistillTask], resume_command: str) -> None:
        settings, folder = self.config.cluster, self.folder
        self.session.join_ray(resume_command)
        wait_for_gpus(settings.min_gpus, settings.gpu_timeout_s)
        share = allot(settings, len(left))
        begun_with = json.dumps(self.teaching.begun_with, indent=1)
        for place, task in left.items():
            write_atomically(folder.path / place / SETTINGS_FILE, begun_with.encode())
            take_over(folder, place, task, self.teaching.recipe_for(task))
        train_students(left, self.teaching.inputs(), folder.path, share, self.keep_epoch, self.keep_student)

    def keep_epoch(self, place: str, epoch: Mapping[str, float]) -> None:
        """Writes down what an epoch reached, as a measurement."""
        self.teaching.tell_of_imbalance(epoch)
        self._measured(self.tasks[place], [epoch])

    def _measured(self, task: DistillTask, epochs: Sequence[Mapping[str, float]]) -> None:
        """Of the run's space: another's ids would be taken for its own. One that is stored already counts once.

        Who learned from the images that validate was not measured, and who began otherwise is another measurement.
        """
        same = task.settings.stem == self.teaching.settings.stem
        if task.space == self.config.space and task.settings.learn_from == "train" and same:
            self.writer.put([self.teaching.measurement(task, epoch) for epoch in epochs])

    def keep_student(self, place: str, trained: Trained) -> None:
        """The student's folder, in every format of the table, and measurements that no driver was there to hear of."""
        task = self.tasks[place]
        self._measured(task, trained.history)
        card = StudentCard(
            task.space,
            task.arch,
            self.data.class_names,
            self._results(task, trained),
            self.config.data.background,
            self.origins[place],
        )
        write_trained(self.folder.path / place, card, trained.weights, trained.history)

    def _results(self, task: DistillTask, trained: Trained) -> dict[str, object]:
        return {
            "epochs": task.settings.epochs,
            "seed": task.settings.seed,
            "val_acc": trained.val_acc if task.settings.learn_from == "train" else None,
            "learned_from": task.settings.learn_from,
            "test_acc": trained.test_acc,
            "teacher": self.teaching.teacher.name,
            "teacher_test_acc": self.teacher_test_acc,
            "teacher_test_acc_at_student": self.at_student,
            "guided": task.settings.loss.follow_teacher,
            "dataset": public_name(self.data.name),
        }


def is_finished(path: Location) -> bool:
    """Whether a student's folder is complete."""
    return (path / ARCH_FILE).exists()


def check_blocks(depth: int, settings: LossSettings) -> None:
    """Raises UsageError where the loss names a block that a student of this depth lacks."""
    if "guidance" not in settings.terms:
        return
    try:
        guided_blocks(depth, settings)
    except ValueError as error:
        raise UsageError(f"config distill.{error}") from None


def check_student_folder(path: Location, session: Session) -> None:
    """Raises UsageError where a folder holds a training that would be lost, or was begun with other settings."""
    settings, file = settings_of(session.config.distill, session.init), path / SETTINGS_FILE
    if not file.exists():
        return
    if not session.resume:
        state = "a trained student" if is_finished(path) else "an unfinished training"
        raise UsageError(f"{path} holds {state}; --resume goes on with it, or move it away to train anew")
    try:
        stored: Mapping[str, object] = dict(parse_json(file.read_text()))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{file} is damaged ({first_line(error)}); move {path} away to train anew") from None
    unset = DistillSettings().model_dump(mode="json")  # of settings that there were not when it was begun
    changed = [key for key in settings if settings[key] != stored.get(key, unset[key])]
    if changed:
        key = changed[0]
        what = f"distill.{key} is {settings[key]} here and {stored.get(key, unset[key])} there"
        raise UsageError(f"{path} was begun with other settings: {what}; move it away to train anew")


def take_over(folder: RunFolder, place: str, task: DistillTask, recipe: str) -> None:
    """A student that refine trained goes on from there, where it learns by the same recipe."""
    rounds = Rounds.load(folder.rounds_file)
    begun, own = folder.refine_folder / state_name(task) / STATE_FILE, folder.path / place / STATE_FILE
    if rounds is None or own.exists() or not begun.exists():
        return
    if rounds.recipe == recipe:
        write_atomically(own, begun.read_bytes())
        say(f"{task.name} goes on from what refine trained")
    else:
        say(f"{task.name} starts anew: refine trained it by other settings, teacher or data")
