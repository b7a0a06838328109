"""Distil: the architectures that a ranking puts first become trained students."""

from __future__ import annotations

from pathlib import Path

from tvt_ray.cluster.connection import check_address, resolve_address
from tvt_ray.data.transforms import check_augmentation
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig, difference
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.scoring.rows import Row, unread, verified
from tvt_ray.stages.initial import check_init, load_init, tell_of_init
from tvt_ray.stages.reorder import settle_score
from tvt_ray.stages.score import read_arch
from tvt_ray.stages.setup import load_data, process_as_it_was, resolve
from tvt_ray.stages.teaching import Teaching
from tvt_ray.stages.trainings import PLACE, Trainings, check_blocks, check_student_folder, is_finished
from tvt_ray.storage.locations import Location
from tvt_ray.students.sources import Source

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
    check_distill(config, folder, top)
    check_address(resolve_address(ray_address))
    with folder.lock() as lock, process_as_it_was():
        init = load_init(config)
        settle_score(folder, config)
        rows = [row_of(arch_file, folder, config)] if arch_file else choose_rows(folder, config, top, arch_id)
        paths = [folder.distill_folder / row.arch_id for row in rows]
        for row, path in zip(rows, paths, strict=True):
            check_student_folder(path, config, resume, init)
            check_blocks(row.depth, config.distill.loss)
        check_init(init, config, rows)
        if not all(map(is_finished, paths)):
            command = folder.distill_command(top, arch_id, config.plugins, arch_file)
            teaching = begin_teaching(config, folder, ray_address, init)
            tasks = {f"{PLACE}/{row.arch_id}": teaching.task(row) for row in rows}
            tell_of_init(teaching.init, tasks.values())
            Trainings(folder, teaching, tasks).run(lock, ray_address, command)
        return [TrainedStudent.read(path) for path in paths]


def begin_teaching(
    config: RunConfig, folder: RunFolder, ray_address: str | None, init: Source | None = None
) -> Teaching:
    """The run's images, its teacher, and what students begin with. Raises UsageError where the images are others."""
    data = load_data(config)
    identity = DataIdentity.of(data, config.probe)
    folder.check_data(identity)
    folder.keep_data(identity)
    return Teaching(config, data, folder.path, ray_address, init)


def check_distill(config: RunConfig, folder: RunFolder, top: int | None = None) -> None:
    """What can be found out before anything is read or started. Raises UsageError."""
    if top is not None and top < 1:
        raise UsageError(f"--top-k is at least 1; got {top}")
    changed = difference(config, folder.config())
    if changed and not changed.startswith(OTHERS_ALLOWED):
        raise UsageError(f"{folder.path} holds another run: {changed}")
    check_augmentation(config.distill.augment)


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
