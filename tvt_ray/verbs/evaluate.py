"""Evaluate: a trained student on a split of a dataset, the one that it was trained on or another."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tvt_ray.data.datasets import check_outside, load_dataset
from tvt_ray.data.decoded import decode_once
from tvt_ray.data.layout import SPLITS
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.survey import name_of
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import DistilledStudent, load_student
from tvt_ray.progress import Meter, say
from tvt_ray.quality.evaluation import Evaluation, Mistake, match_classes, probabilities_of
from tvt_ray.quality.statistics import confident_mistakes, quality_of
from tvt_ray.report.contact_sheet import Pixels, thumbnail
from tvt_ray.report.evaluation_page import evaluation_page
from tvt_ray.runs.inputs import log_notes
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.storage.locations import Location, as_location, write_atomically
from tvt_ray.storage.patience import check_folder
from tvt_ray.verbs.provenance import TrainedOn, asked_of, folder_of

ALL = "all"  # every split together
NUM_MISTAKES = 24  # on the page
PAGE_FILE, JSON_FILE = "evaluation.html", "evaluation.json"


def evaluate(
    student: TrainedStudent | Location | str,
    dataset: str | None = None,
    *,
    split: str = "test",
    out: Location | str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """How good a student is on a split (train, val, test, all) of a dataset; None: of the one it was trained on.

    `dataset` is named as on the command line: digits, imagefolder:PATH, or a path alone.
    Writes evaluation.json and evaluation.html into `out`, by default RUN/evaluations/<arch_id>/…, or a folder beside
    that of a student without a run: they show images, and people pass students on. Where that cannot be written to, a
    line says so, and the figures are what is returned. `settings`: of how the data is read, as in {"data":
    {"label_column": "kind"}}. Runs on the GPU if there is one. Raises UsageError for a folder that holds no student, a
    dataset with classes that it does not know, and whatever is wrong with the dataset.
    """
    if split not in (*SPLITS, ALL):
        raise UsageError(f"unknown split {split!r}; choices: {', '.join((*SPLITS, ALL))}")
    path, asked = folder_of(student), asked_of(dataset, settings)
    loaded = load_student(path)
    trained_on = TrainedOn.of(path, loaded.card)
    data = load_dataset(trained_on.settings(asked))
    subject = _Subject(path, loaded, trained_on, data, data.fingerprint(), split)
    folder = subject.place(out)
    with process_as_it_was():
        evaluation, pictures = subject.evaluate(folder)
    if folder is not None:
        write_atomically(folder / PAGE_FILE, evaluation_page(evaluation, pictures))
        write_atomically(folder / JSON_FILE, json.dumps(evaluation.to_json(), indent=1).encode())
    return evaluation


@dataclass(frozen=True)
class _Subject:
    """Who is evaluated, and on what."""

    path: Location
    student: DistilledStudent
    trained_on: TrainedOn
    data: Dataset
    fingerprint: str
    split: str

    def place(self, out: Location | str | None) -> Location | None:
        """Where the page goes; None, after a line, where nothing can be written and nobody said where. UsageError."""
        folder = self.default_folder() if out is None else as_location(out)
        check_outside(folder, self.data.name)
        try:
            check_folder(folder)
        except UsageError as error:
            if out is not None:
                raise
            say(f"no page is written: {error}; --out DIR writes one elsewhere")
            return None
        return folder

    def default_folder(self) -> Location:
        """In the run, or beside a student that lies in none."""
        if self.trained_on.config is None:
            return self.path.parent / f"{self.path.name}-evaluations" / self._name()
        return self.trained_on.run.path / "evaluations" / self.path.name / self._name()

    def _name(self) -> str:
        """As in photos-test-1f0c3a5b: one evaluation does not replace that of other images."""
        kind, _, path = self.data.name.partition(":")
        name = re.sub(r"[^\w.-]", "_", path.rstrip("/").rpartition("/")[2] or kind)[:60]
        return f"{name}-{self.split}-{self.fingerprint[:8]}"

    def evaluate(self, folder: Location | None) -> tuple[Evaluation, list[Pixels]]:
        """What is found, and pictures of the mistakes. Says beforehand what a reader should know."""
        names, data = self.student.class_names, self.data
        match = match_classes(names, data.class_names)
        log_notes(data)
        seen = self.trained_on.notes(data, self.fingerprint, self.split, _parts(data, self.split))
        notes = (*match.notes, *seen)
        for note in notes:
            say(f"note: {note}")
        parts = _parts(decode_once(data, self.trained_on.largest_size(self.fingerprint)), self.split)
        places = [(name, position) for name, part in parts.items() for position in range(len(part))]
        labels = match.relabel(np.concatenate([part.labels for part in parts.values()]))
        probabilities = _probabilities(self.student, list(parts.values()))
        shown = confident_mistakes(labels, probabilities, NUM_MISTAKES)
        evaluation = Evaluation(
            student=str(self.path),
            dataset=data.name,
            fingerprint=self.fingerprint,
            split=self.split,
            quality=quality_of(labels, probabilities, names),
            mistakes=tuple(_mistake(name_of(data, *places[i]), names, int(labels[i]), probabilities[i]) for i in shown),
            notes=(*data.notes, *notes),
            page=None if folder is None else str(folder / PAGE_FILE),
            file=None if folder is None else str(folder / JSON_FILE),
        )
        pictures = [parts[name][position][0] for name, position in (places[i] for i in shown)]
        return evaluation, [thumbnail(picture, self.student.image_size) for picture in pictures]


def _parts(data: Dataset, split: str) -> Mapping[str, Split]:
    return data.splits if split == ALL else {split: data.split(split)}


def _probabilities(student: DistilledStudent, splits: Sequence[Split]) -> NDArray[np.float64]:
    """(n, classes): of the splits one after the other."""
    student.to("cuda" if torch.cuda.is_available() else "cpu")
    with Meter("evaluating", sum(map(len, splits)), "images") as meter:
        found = [probabilities_of(student, split, student.image_size, meter.advance) for split in splits]
    return np.concatenate(found)


def _mistake(image: str, names: Sequence[str], label: int, probabilities: NDArray[np.float64]) -> Mistake:
    taken = int(probabilities.argmax())
    return Mistake(image, names[label], names[taken], 100 * float(probabilities[taken]))
