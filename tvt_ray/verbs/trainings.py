"""Students as a verb trains them: what is kept of each, and what each goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tvt_ray.cluster.board import STATE_FILE
from tvt_ray.cluster.cohorts import state_name
from tvt_ray.cluster.slots import allot, wait_for_gpus
from tvt_ray.cluster.training import Trained, train_students
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.losses import LossSettings, guided_blocks
from tvt_ray.errors import RunError, UsageError
from tvt_ray.exports import StudentCard, write_trained
from tvt_ray.exports.folder import ARCH_FILE, Origin
from tvt_ray.progress import say
from tvt_ray.refining.learned import Measurement
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.rounds import Rounds
from tvt_ray.storage.locations import Location, first_line, write_atomically
from tvt_ray.storage.records import RecordWriter
from tvt_ray.teachers.training import teacher_accuracy
from tvt_ray.verbs.origin import origins_of, ranking_of, versions
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.teaching import Teaching, settings_of

SETTINGS_FILE = "distill.json"
PLACE, RIVALS_PLACE = "distill", "baselines"  # folders of the run's, with a folder for each student


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
        self.teacher_test_acc = teacher_accuracy(teacher, self.data.test)
        own = size == teacher.image_size
        self.at_student = self.teacher_test_acc if own else teacher_accuracy(teacher, self.data.test, size)
        say(f"teacher: {teacher.name} reaches {self.teacher_test_acc:.2f} % on the test split")

    def _origins(self, left: Mapping[str, DistillTask]) -> Mapping[str, Origin]:
        """How they came about. Taken before measurements are added, which may be what they were chosen by."""
        config, trainings = self.config, {}
        for place, task in left.items():
            arch_id = task.arch_id if task.space == config.space else ""  # of which the run has none
            trainings[place] = arch_id, self.teaching.told_recipe(task)
        return origins_of(self.folder, config, trainings, ranking_of(self.folder, config), versions())

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
        """A measurement."""
        self.teaching.tell_of_imbalance(epoch)
        self._measured(self.tasks[place], [epoch])

    def _measured(self, task: DistillTask, epochs: Sequence[Mapping[str, float]]) -> None:
        """Of the run's space: another's ids would be taken for its own. One that is stored already counts once."""
        if task.space == self.config.space:
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
            "val_acc": trained.val_acc,
            "test_acc": trained.test_acc,
            "teacher": self.teaching.teacher.name,
            "teacher_test_acc": self.teacher_test_acc,
            "teacher_test_acc_at_student": self.at_student,
            "guided": task.settings.loss.follow_teacher,
            "dataset": self.data.name,
        }


def is_finished(path: Location) -> bool:
    """Whether a student's folder is complete."""
    return (path / ARCH_FILE).exists()


def check_blocks(depth: int, settings: LossSettings) -> None:
    """Raises UsageError where the loss names a block that a student of this depth lacks."""
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
        stored: Mapping[str, object] = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{file} is damaged ({first_line(error)}); move {path} away to train anew") from None
    changed = [key for key in settings if settings[key] != stored.get(key)]
    if changed:
        key = changed[0]
        what = f"distill.{key} is {settings[key]} here and {stored.get(key)} there"
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
