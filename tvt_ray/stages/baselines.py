"""Baselines: what a student has to beat, trained by the same recipe beside it, and a verdict in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tvt_ray.cluster.connection import check_address, resolve_address
from tvt_ray.data.splits import Dataset
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.progress import say
from tvt_ray.quality.comparison import Comparison, Hits, Rival, rival, to_json, verdict
from tvt_ray.quality.predictions import probabilities_of
from tvt_ray.quality.statistics import majority_of
from tvt_ray.report.comparison_page import comparison_page
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.scoring.rows import Row
from tvt_ray.stages.contenders import (
    BASELINES,
    STUDENT,
    Contender,
    Contest,
    check_names,
    choose_contenders,
    place_of,
    task_of,
)
from tvt_ray.stages.distill import begin_teaching, check_distill, choose_rows, row_of
from tvt_ray.stages.initial import begin_as_they_can, check_init, load_init, tell_of_init
from tvt_ray.stages.reorder import settle_score
from tvt_ray.stages.setup import process_as_it_was, resolve
from tvt_ray.stages.teaching import Teaching
from tvt_ray.stages.trainings import PLACE, Trainings, check_blocks, check_student_folder
from tvt_ray.storage.locations import Location, write_atomically

PAGE_FILE, JSON_FILE = "baselines.html", "baselines.json"


def run_baselines(
    config: RunConfig,
    run_dir: Location,
    names: Sequence[str] = tuple(BASELINES),
    num_seeds: int = 1,
    arch_id: str | None = None,
    arch_file: Path | None = None,
    resume: bool = False,
    ray_address: str | None = None,
) -> Comparison:
    """Trains a run's best student (or the one with `arch_id`, or of a file) and its rivals, with so many seeds each.

    `names`: rows of BASELINES and of scores. All have one recipe and learn side by side. The student is
    run_dir/distill/<arch_id>, with other seeds it is below run_dir/baselines/, as its rivals are. Writes
    baselines.json and baselines.html. Raises UsageError for what is wrong beforehand, RunError as distil does.
    """
    check_names(names)
    if num_seeds < 1:
        raise UsageError(f"--seeds is at least 1; got {num_seeds}")
    folder, config = RunFolder(run_dir), resolve(config)
    check_distill(config, folder)
    check_address(resolve_address(ray_address))
    with folder.lock() as lock, process_as_it_was():
        init = load_init(config)
        settle_score(folder, config)
        row = row_of(arch_file, folder, config) if arch_file else choose_rows(folder, config, 1, arch_id)[0]
        check_student_folder(folder.distill_folder / row.arch_id, config, resume, init)
        check_init(init, config, [row])
        check_blocks(row.depth, config.distill.loss)
        teaching = begin_teaching(config, folder, ray_address, init)
        race = _Race(config, folder, row, teaching, names, num_seeds)
        for place in race.tasks:
            check_student_folder(folder.path / place, config, resume, init)
        say(f"baselines: {len(race.contenders)} students with {num_seeds} seeds are {len(race.tasks)} trainings")
        tell_of_init(teaching.init, [race.tasks[f"{PLACE}/{row.arch_id}"]])
        command = folder.baselines_command(names, num_seeds, arch_id, config.plugins, arch_file)
        Trainings(folder, teaching, race.tasks).run(lock, ray_address, command)
        found = race.compare()
    write_atomically(folder.path / PAGE_FILE, comparison_page(found))
    write_atomically(folder.path / JSON_FILE, json.dumps(to_json(found), indent=1).encode())
    return found


class _Race:
    """The student and its rivals, what each trains, and how they end."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        row: Row,
        teaching: Teaching,
        names: Sequence[str],
        num_seeds: int,
    ) -> None:
        self.folder, self.row, self.teaching = folder, row, teaching
        self.num_classes, first = teaching.data.num_classes, config.distill.seed
        contest = Contest(config, folder, folder.rows().read(), row, self.num_classes, teaching.guided)
        self.contenders, self.left_out = choose_contenders(contest, names)
        self.seeds = tuple(range(first, first + num_seeds))
        self.places = {name: [place_of(each, contest, s) for s in self.seeds] for name, each in self.contenders.items()}
        tasks = {
            place: task_of(each, teaching, seed)
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
