"""Enough images, right labels? What the frozen features of a pretrained network say of a dataset."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tvt_ray.data.splits import Dataset, joined
from tvt_ray.data.survey import name_of
from tvt_ray.progress import say
from tvt_ray.report.contact_sheet import write_captioned
from tvt_ray.storage.locations import write_atomically
from tvt_ray.teachers.head import Features, choose_head, fast, features_of
from tvt_ray.teachers.labels import Growth, growth, out_of_fold, suspects
from tvt_ray.teachers.published import CANDIDATES, create_published, is_here
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.timm_cnn import PREFIX, as_teacher
from tvt_ray.teachers.training import trains_head
from tvt_ray.training.pace import device_here
from tvt_ray.verbs.report import LABELS_FILE
from tvt_ray.verbs.session import Session

MOST_IMAGES = 4000  # that are looked at without being asked: some minutes of two cores
MOST_LISTED, MOST_DRAWN = 40, 40
STANDARD_ERRORS = 2  # that features are above the largest class, to be asked about labels


@dataclass(frozen=True)
class WrongLabel:
    """An image whose label looks wrong."""

    image: str
    label: str
    looks_like: str
    margin: float  # by which the probability of that class is above the label's, 0 to 1


@dataclass(frozen=True)
class LabelReport:
    """By a linear head on frozen features, each image judged by heads that did not learn from it."""

    network: str
    accuracy: float  # percent, by cross-validation
    majority: float  # percent that are of the largest class
    num_suspects: int | None  # None: the features are no better than the largest class, and say nothing of labels
    suspects: tuple[WrongLabel, ...]  # the worst first
    growth: Growth | None  # None: a class has too few images
    sheet: str | None  # a picture of the suspects

    def sentences(self) -> list[str]:
        """What a person should look at."""
        if self.num_suspects is None:
            return [
                f"the features of {self.network} say nothing of them: {self.accuracy:.1f} % by those, and "
                f"{self.majority:.1f} % for always the largest class"
            ]
        count = {0: "none looks", 1: "1 looks"}.get(self.num_suspects, f"{self.num_suspects:,} look")
        found = [
            f"{count} wrong to {self.network}, whose features are right for {self.accuracy:.1f} % by cross-validation"
        ]
        found += [
            f"{each.image} is labelled {each.label} and looks like {each.looks_like}" for each in self.suspects[:5]
        ]
        if self.growth is not None:
            low, high = self.growth.twice_interval
            found.append(
                f"with a quarter of the images those features reach {self.growth.quarter:.1f} %, with half "
                f"{self.growth.half:.1f}, with all {self.growth.all:.1f}, and with twice as many about "
                f"{self.growth.twice:.1f} ({low:.1f} to {high:.1f})"
            )
        return found


def report_labels(session: Session) -> None:
    """Of a fit whose teacher others trained: says which labels look wrong to it, before students learn from them.

    Kept in the run folder as labels.json, beside a picture; nothing is done where that is there.
    """
    config, file = session.config, session.folder.path / LABELS_FILE
    if file.is_file() or not trains_head(config.teacher, config.teacher_training):
        return
    folder = session.folder.path
    found = look_at_labels(session.data, folder if isinstance(folder, Path) else None, config.seed, session.teacher)
    if found is not None:
        write_atomically(file, json.dumps({**asdict(found), "sentences": found.sentences()}, indent=1).encode())
        say("\n".join(f"labels: {line}" for line in found.sentences()))


def look_at_labels(
    data: Dataset, out: Path | None = None, seed: int = 0, teacher: Teacher | None = None
) -> LabelReport | None:
    """Of the images that train and validate. None where no pretrained weights are here, or there are too many images.

    `out`: a folder for a picture of the suspects. `teacher`: whose features are asked; None: those of published
    weights that are here.
    """
    split, device = joined(data.train, data.val), device_here()
    if len(split) > MOST_IMAGES:
        return None
    if teacher is None:
        found_here = next(filter(is_here, CANDIDATES), None)
        if found_here is None:
            return None
        model = create_published(found_here, data.num_classes, tell=lambda line: None)
        teacher = as_teacher(f"{PREFIX}{found_here}", model, data.num_classes).freeze()
    network = teacher.name.removeprefix(PREFIX)
    features = features_of(fast(teacher.to(device).features, device), split, teacher.image_size)
    teacher.cpu()
    head = choose_head(Features(features, {}, split.labels), data.num_classes, seed)
    majority = 100 * float(np.bincount(split.labels).max() / len(split))
    error = (majority * (100 - majority) / len(split)) ** 0.5
    if head.cv_acc < majority + STANDARD_ERRORS * error:
        return LabelReport(network, head.cv_acc, majority, None, (), None, None)
    found = suspects(split.labels, out_of_fold(features, split.labels, head.strength, data.num_classes, seed))
    names, classes = _names(data), data.class_names
    sheet = None
    if out is not None and found:
        sheet = out / "suspect_labels.png"
        drawn = found[:MOST_DRAWN]
        captions = [f"{classes[each.label]}\n-> {classes[each.likelier]}?" for each in drawn]
        title = f"{len(found)} labels that look wrong: the label, and what the image looks like"
        write_captioned(sheet, title, [split[each.place][0] for each in drawn], captions, 96)
    return LabelReport(
        network,
        head.cv_acc,
        majority,
        len(found),
        tuple(
            WrongLabel(names[each.place], classes[each.label], classes[each.likelier], round(each.margin, 4))
            for each in found[:MOST_LISTED]
        ),
        growth(features, split.labels, head.strength, data.num_classes, seed),
        str(sheet) if sheet else None,
    )


def _names(data: Dataset) -> list[str]:
    return [name_of(data, split, place) for split in ("train", "val") for place in range(len(data.split(split)))]
