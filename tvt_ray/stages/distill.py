"""Distil: the architectures that a ranking puts first become trained students."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tvt_ray.cluster.cohorts import state_name
from tvt_ray.cluster.connection import check_address, connected, resolve_address, wait_for_gpus
from tvt_ray.cluster.slots import allot
from tvt_ray.cluster.training import STATE_FILE, Trained, Watch, train_students
from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import check_augmentation
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.losses import guided_blocks
from tvt_ray.errors import RunError, UsageError
from tvt_ray.exports import StudentCard, write_trained
from tvt_ray.exports.folder import ARCH_FILE
from tvt_ray.exports.origin import Origin
from tvt_ray.progress import say
from tvt_ray.runs.config import RunConfig, difference
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.rounds import Rounds
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.scoring.measurements import Measurement
from tvt_ray.scoring.rows import Row, unread, verified
from tvt_ray.stages.origin import origin_of, ranking_of, versions
from tvt_ray.stages.reorder import settle_score
from tvt_ray.stages.score import read_arch
from tvt_ray.stages.setup import end_without_ray, load_data, process_as_it_was, resolve
from tvt_ray.stages.teaching import Teaching
from tvt_ray.storage.locations import Location, first_line, write_atomically
from tvt_ray.storage.parts import PartWriter
from tvt_ray.teachers.training import teacher_accuracy

SETTINGS_FILE = "distill.json"
OTHERS_ALLOWED = ("teacher.", "teacher_training.")  # a student may learn from another teacher than the one that scored


def run_distill(
    config: RunConfig,
    run_dir: Location,
    top: int | None = None,
    arch_id: str | None = None,
    resume: bool = False,
    ray_address: str | None = None,
    arch_file: Path | None = None,
) -> list[TrainedStudent]:
    """Trains the `top` best architectures of a run by the config's score, the one with `arch_id`, or that of a file.

    Each becomes run_dir/distill/<arch_id>. With `resume`, students that are finished with the same settings are kept
    and unfinished ones go on from their last checkpoint. Raises UsageError where a folder holds a training that would
    be lost, RunError when a training could not finish.
    """
    folder, config = RunFolder(run_dir), resolve(config)
    _check(config, folder, top)
    check_address(resolve_address(ray_address))
    with folder.lock() as lock, process_as_it_was():
        settle_score(folder, config)
        rows = [row_of(arch_file, folder, config)] if arch_file else choose_rows(folder, config, top, arch_id)
        for row in rows:
            check_student_folder(folder.distill_folder / row.arch_id, config, resume)
            _check_blocks(config, row)
        left = [row for row in rows if not (folder.distill_folder / row.arch_id / ARCH_FILE).exists()]
        if left:
            command = folder.distill_command(top, arch_id, config.plugins, arch_file)
            data = load_data(config)
            identity = DataIdentity.of(data, config.probe)
            folder.check_data(identity)
            folder.keep_data(identity)
            try:
                with PartWriter(folder.measurements(), lock.check) as writer:
                    _Training(config, folder, data, writer, ray_address).run(left, command)
            except RunError as error:
                raise RunError(f"{error}; go on with: {command}") from None
            folder.measurements().compact()
        return [TrainedStudent.read(folder.distill_folder / row.arch_id) for row in rows]


def _check(config: RunConfig, folder: RunFolder, top: int | None) -> None:
    """What can be found out before anything is read or started."""
    if top is not None and top < 1:
        raise UsageError(f"--top-k is at least 1; got {top}")
    changed = difference(config, folder.config())
    if changed and not changed.startswith(OTHERS_ALLOWED):
        raise UsageError(f"{folder.path} holds another run: {changed}")
    check_augmentation(config.distill.augment)


def _check_blocks(config: RunConfig, row: Row) -> None:
    try:
        guided_blocks(row.depth, config.distill.loss)
    except ValueError as error:
        raise UsageError(f"config distill.{error}") from None


def choose_rows(folder: RunFolder, config: RunConfig, top: int | None, arch_id: str | None) -> list[Row]:
    """The best `top` rows of a run, one of each shape, or the one with `arch_id`.

    Raises UsageError when there are none.
    """
    rows, space = folder.rows().read(), config.space
    if arch_id is not None:
        chosen = [row for row in rows if row.arch_id == arch_id]
        if not chosen:
            raise UsageError(f"run {folder.path} has no architecture {arch_id!r}; top.json lists the best")
        return [verified(row, space) for row in chosen]
    best = folder.ranking(config.score, rows).top(top or 1) if rows else []
    if not best:
        raise UsageError(f"run {folder.path} has no scored architectures to distil")
    return [verified(each.row, space) for each in best]


def row_of(arch_file: Path, folder: RunFolder, config: RunConfig) -> Row:
    """The architecture of a file, of the run's space but not of its rows: it has no readings.

    Raises UsageError where the file holds none.
    """
    space, arch = config.space, read_arch(arch_file, config.space)
    identity = DataIdentity.load(folder.data_file)
    num_classes = len(identity.class_names) if identity else load_data(config).num_classes
    return unread(space, arch, num_classes, config.seed)


def check_student_folder(path: Location, config: RunConfig, resume: bool) -> None:
    """Raises UsageError where a folder holds a training that would be lost, or was begun with other settings."""
    settings, file = config.distill.model_dump(mode="json"), path / SETTINGS_FILE
    if not file.exists():
        return
    if not resume:
        state = "a trained student" if (path / ARCH_FILE).exists() else "an unfinished training"
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


class _Training:
    """The students of one call, their teacher, and what is kept of them."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        data: Dataset,
        writer: PartWriter[Measurement],
        ray_address: str | None,
    ) -> None:
        self.config, self.folder, self.data, self.writer = config, folder, data, writer
        self.ray_address = ray_address
        self.teaching = Teaching(config, data, folder.path, ray_address)
        teacher = self.teaching.teacher
        self.teacher_test_acc = teacher_accuracy(teacher, data.test)
        size, own = config.space.image_size, teacher.image_size
        self.at_student = self.teacher_test_acc if size == own else teacher_accuracy(teacher, data.test, size)
        self.tasks: dict[str, DistillTask] = {}
        self.origins: dict[str, Origin] = {}

    def run(self, rows: Sequence[Row], command: str) -> None:
        """Trains them on the cluster. `command`: what goes on with it."""
        config, teaching = self.config, self.teaching
        say(f"teacher: {teaching.teacher.name} reaches {self.teacher_test_acc:.2f} % on the test split")
        self.tasks = {row.arch_id: teaching.task(row) for row in rows}
        self._note_origins()
        with connected(self.ray_address, lambda reason: end_without_ray(reason, command)):
            wait_for_gpus(config.cluster.min_gpus, config.cluster.gpu_timeout_s)
            share = allot(config.cluster, len(rows))
            begun_with = json.dumps(config.distill.model_dump(mode="json"), indent=1)
            for row in rows:
                write_atomically(self.folder.distill_folder / row.arch_id / SETTINGS_FILE, begun_with.encode())
            take_over(self.folder, self.tasks.values(), teaching.recipe)
            watch = Watch(self.keep_epoch, self.keep_student)
            train_students(list(self.tasks.values()), teaching.inputs(), self.folder.distill_folder, share, watch)

    def _note_origins(self) -> None:
        """Before any training adds to the measurements, which may be what they were chosen by."""
        ranking = ranking_of(self.folder, self.config)
        recipe = self.teaching.settings.model_dump(mode="json")
        for arch_id in self.tasks:
            self.origins[arch_id] = origin_of(self.folder, self.config, arch_id, recipe, ranking, versions())

    def keep_epoch(self, arch_id: str, epoch: Mapping[str, float]) -> None:
        """A measurement."""
        self.teaching.tell_of_imbalance(epoch)
        self.writer.put([self.teaching.measurement(arch_id, epoch)])

    def keep_student(self, arch_id: str, trained: Trained) -> None:
        """The student's folder, in every format of the table, and measurements that no driver was there to hear of.

        One that is stored already counts once.
        """
        self.writer.put([self.teaching.measurement(arch_id, epoch) for epoch in trained.history])
        results = {
            "epochs": self.config.distill.epochs,
            "val_acc": trained.val_acc,
            "test_acc": trained.test_acc,
            "teacher": self.teaching.teacher.name,
            "teacher_test_acc": self.teacher_test_acc,
            "teacher_test_acc_at_student": self.at_student,
            "guided": self.teaching.settings.loss.follow_teacher,
            "dataset": self.data.name,
        }
        arch, background = self.tasks[arch_id].arch, self.config.data.background
        card = StudentCard(self.config.space, arch, self.data.class_names, results, background, self.origins[arch_id])
        write_trained(self.folder.distill_folder / arch_id, card, trained.weights, trained.history)


def take_over(folder: RunFolder, tasks: Iterable[DistillTask], recipe: str) -> None:
    """Students that refine trained go on from there, where they learn by the same recipe."""
    rounds = Rounds.load(folder.rounds_file)
    for task in tasks:
        begun = folder.refine_folder / state_name(task) / STATE_FILE
        own = folder.distill_folder / task.arch_id / STATE_FILE
        if rounds is None or own.exists() or not begun.exists():
            continue
        if rounds.recipe == recipe:
            write_atomically(own, begun.read_bytes())
            say(f"{task.arch_id} goes on from what refine trained")
        else:
            say(f"{task.arch_id} starts anew: refine trained it by other settings, teacher or data")
