"""Distil: the architectures that a ranking puts first become trained students."""

from __future__ import annotations

import shlex
from pathlib import Path

from tvt_ray.data.transforms import check_augmentation
from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.runs.config import RunConfig, difference
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.resuming import distill_command
from tvt_ray.runs.run import Run, TrainedStudent
from tvt_ray.scoring.rows import Row, unread, verified
from tvt_ray.verbs.init import check_init, check_start, tell_of_init
from tvt_ray.verbs.refine import check_points, smallest_of
from tvt_ray.verbs.report import settle_score
from tvt_ray.verbs.score import read_arch
from tvt_ray.verbs.session import Changes, Session, session_of
from tvt_ray.verbs.trainings import PLACE, Teaching, Trainings, check_blocks, check_student_folder, is_finished
from tvt_ray.vits.budget import format_count

OTHERS_ALLOWED = ("teacher.", "teacher_training.")  # a student may learn from another teacher than the one that scored


def distill(
    run: Session | Run | str | Path,
    *,
    top_k: int | None = None,
    arch_id: str | None = None,
    arch_file: Path | None = None,
    within: float | None = None,
    score: str | None = None,
    settings: Changes = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> list[TrainedStudent]:
    """Trains a run's `top_k` best (1), one of each shape, or the one with `arch_id`, or that of a file, on Ray Train.

    `within`: the smallest of a refined run that is most likely no more than so many points worse than its best. Each
    becomes run_dir/distill/<arch_id>. `score`: ranks by another score, which becomes the run's. `settings`:
    changes the run's own, as in {"distill": {"epochs": 10}}, or is another config. `resume`: students that are finished
    with the same settings are kept and unfinished ones go on. Raises UsageError where a folder holds a training that
    would be lost, RunError when a training could not finish.
    """
    if within is not None:
        check_points(within)
    with session_of(run, settings, resume, ray_address) as session:
        if score is not None:
            session.config = session.config.ranked_by(score)
        config, folder = session.config, session.folder
        check_distill(config, folder, top_k)
        _ = session.lock, session.init
        settle_score(session)
        rows = choose_rows(session, top_k, arch_id, arch_file) if within is None else [_smallest(session, within)]
        paths = [folder.distill_folder / row.arch_id for row in rows]
        for row, path in zip(rows, paths, strict=True):
            check_student_folder(path, session)
            check_blocks(row.depth, config.distill.loss)
        check_init(session.init, config, rows)
        if not all(map(is_finished, paths)):
            session.keep_images()
            teaching = Teaching(session)
            tasks = {f"{PLACE}/{row.arch_id}": teaching.task(row) for row in rows}
            tell_of_init(teaching.init, tasks.values())
            student = arch_id if within is None else rows[0].arch_id  # whom more measurements would not change
            command = distill_command(folder.path, top_k, student, arch_file, "", config.plugins, session.ray_address)
            Trainings(session, teaching, tasks).run(command)
        return [TrainedStudent.read(path) for path in paths]


def check_distill(config: RunConfig, folder: RunFolder, top: int | None = None) -> None:
    """What can be found out before anything is read or started. Raises UsageError."""
    if top is not None and top < 1:
        raise UsageError(f"--top-k is at least 1; got {top}")
    changed = difference(config, folder.config())
    if changed and not changed.startswith(OTHERS_ALLOWED):
        raise UsageError(f"{folder.path} holds another run: {changed}")
    check_augmentation(config.distill.augment)
    check_start(config)


def choose_rows(
    session: Session, top: int | None = None, arch_id: str | None = None, arch_file: Path | None = None
) -> list[Row]:
    """The best `top` rows of a run, one of each shape, or the one with `arch_id`, or that of a file.

    Raises UsageError when there are none.
    """
    if arch_file is not None:
        return [_row_of(arch_file, session)]
    rows, space, folder = session.rows, session.config.space, session.folder
    if arch_id is not None:
        chosen = [row for row in rows if row.arch_id == arch_id]
        if not chosen:
            raise UsageError(f"run {folder.path} has no architecture {arch_id!r}; top.json lists the best")
        return [verified(row, space) for row in chosen]
    best = folder.ranking(session.config.score, rows).top(top or 1) if rows else []
    if not best:
        raise UsageError(f"run {folder.path} has no scored architectures to distil")
    return [verified(each.row, space) for each in best]


def _smallest(session: Session, within: float) -> Row:
    """Raises UsageError for a run that was not refined, whatever ranks it now."""
    folder = session.folder
    found = smallest_of(session, folder.learned(session.config.score, session.rows), within)
    if found is None:
        raise UsageError(
            f"--within is for a run that was refined: too few students of {folder.path} were measured; "
            f"tvt refine --run-dir {shlex.quote(str(folder.path))} does that"
        )
    say(f"distill: {found.arch_id} ({format_count(found.params)} parameters) {found.sentence}")
    return choose_rows(session, arch_id=found.arch_id)[0]


def _row_of(arch_file: Path, session: Session) -> Row:
    """Of the run's space but not of its rows: it has no readings."""
    space, arch = session.config.space, read_arch(arch_file, session.config.space)
    identity = DataIdentity.load(session.folder.data_file) or session.identity
    return unread(space, arch, len(identity.class_names), session.config.seed)
