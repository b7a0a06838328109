"""What everyone has at hand, beside a fitted student: the largest class, the frozen teacher, and its stages alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from tvt_ray.exports.folder import load_student
from tvt_ray.quality.comparison import Rival as TrainedRival
from tvt_ray.quality.comparison import estimate
from tvt_ray.quality.statistics import Interval, majority_of, wilson
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.storage.locations import as_location, write_atomically
from tvt_ray.strict import parse_json
from tvt_ray.teachers.labels import Growth
from tvt_ray.teachers.timm_cnn import PREFIX
from tvt_ray.teachers.training import Hits, trains_head
from tvt_ray.verbs.compare import hits_of
from tvt_ray.verbs.cuts import Cut
from tvt_ray.verbs.report import LABELS_FILE, RIVALS_FILE
from tvt_ray.verbs.session import Session

NUM_TIMED = 9  # passes of one image, the median of which counts


@dataclass(frozen=True)
class Rival:
    """One that could be used instead. Accuracy is top-1 on the test split, in percent."""

    name: str
    title: str  # for people
    test_acc: float
    test_acc_ci95: Interval
    ahead: float | None  # points by which the student is above it; None: it is the student
    ahead_ci95: Interval | None  # over the same test images
    params: int | None
    mbytes: float | None  # of its weights in float32
    ms: float | None  # for one image on this machine's CPU, all its cores


@dataclass(frozen=True)
class Rivals:
    """The student first, and what to take of them, in words."""

    num_images: int  # of the test split
    rivals: tuple[Rival, ...]
    advice: str


def compare_with_rivals(
    session: Session, student: TrainedStudent, cuts: Sequence[Cut], trained: Sequence[TrainedRival] = ()
) -> Rivals:
    """On the test split; written to rivals.json. `trained`: by the student's recipe, of one seed each."""
    data, teacher = session.data, session.teacher
    labels = data.test.labels
    loaded = load_student(student.path)
    own = hits_of(as_location(student.path), data)
    _, majority_class = majority_of(labels, data.class_names)
    largest = labels == data.class_names.index(majority_class)
    rivals = [
        _rival("student", "the student", own, None, student.params, latency_ms(loaded, loaded.image_size)),
        _rival("majority", f"always {majority_class!r}", largest, own, None, None),
        _rival(
            "teacher",
            f"the teacher, {teacher.name}, {how_taught(session.config)}",
            session.teacher_hits,
            own,
            sum(parameter.numel() for parameter in teacher.parameters()),
            latency_ms(teacher, teacher.image_size),
        ),
    ]
    stem = getattr(loaded.card.arch, "stem", "")
    cut = next((each for each in cuts if each.stem == stem), None)
    if cut is not None:
        title, trunk = f"the teacher cut at {cut.stem}, frozen, with a linear head", loaded.student.trunk
        ms = None if trunk is None else latency_ms(trunk, loaded.image_size)
        rivals.append(_rival("cut", title, np.array(cut.test_hits), own, cut.params, ms))
    for each in trained:
        network = load_student(each.path)
        ms, hits = latency_ms(network, network.image_size), hits_of(as_location(each.path), data)
        rivals.append(_rival(each.name, each.title, hits, own, each.params, ms))
    said = session.folder.path / LABELS_FILE
    growth = parse_json(said.read_text())["growth"] if said.is_file() else None
    found = Rivals(len(labels), tuple(rivals), advise(rivals, growth and Growth(**growth)))
    write_atomically(session.folder.path / RIVALS_FILE, json.dumps(asdict(found), indent=1).encode())
    return found


def how_taught(config: RunConfig) -> str:
    """What became of the teacher, in words."""
    if config.teacher.weights is not None:
        return "as given"
    if trains_head(config.teacher, config.teacher_training):
        return "frozen, with a linear head"
    begun = config.teacher.name.startswith(PREFIX) and config.teacher.pretrained is not False
    return "all of it trained further" if begun else "trained from scratch"


def _rival(
    name: str,
    title: str,
    hits: Hits,
    student: Hits | None,
    params: int | None,
    ms: float | None,
) -> Rival:
    accuracy, ci95 = 100 * float(hits.mean()), wilson(int(hits.sum()), len(hits))
    ahead = None if student is None else 100 * float(student.mean() - hits.mean())
    ahead_ci95 = None if student is None else estimate((student.astype(float) - hits)[None]).ci95
    return Rival(name, title, accuracy, ci95, ahead, ahead_ci95, params, params and 4e-6 * params, ms)


@torch.inference_mode()
def latency_ms(model: nn.Module, size: int) -> float:
    """Milliseconds for one image, the median of some passes after one that warms up."""
    image, seconds = torch.zeros(1, 3, size, size), []
    for _ in range(1 + NUM_TIMED):
        start = time.perf_counter()
        model(image)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds[1:]))


def advise(rivals: Sequence[Rival], growth: Growth | None = None) -> str:
    """What a colleague would say. `growth`: what more images are worth to the frozen features."""
    by_name = {each.name: each for each in rivals}
    student, teacher = by_name["student"], by_name["teacher"]
    assert teacher.ahead is not None
    assert teacher.ahead_ci95 is not None
    assert student.params
    assert teacher.params
    size = f"{student.params / teacher.params:.0%} of its size"
    speed = "" if not (student.ms and teacher.ms) else f", {student.ms / teacher.ms:.0%} of its time for an image"
    low, high = teacher.ahead_ci95
    beside = f"{teacher.ahead:+.1f} points beside the teacher, 95 %: {low:+.1f} to {high:+.1f}"
    majority = by_name["majority"]
    if majority.ahead_ci95 is not None and majority.ahead_ci95[0] <= 0:
        return (
            "Take neither yet: the student is not surely better than naming the largest class; more images would help."
        )
    stages = by_name.get("blockless") or by_name.get("cut")
    alone = ""
    if stages is not None and stages.ahead_ci95 is not None and stages.ahead_ci95[0] <= 0:
        alone = " A linear head on the same stages is as good within the interval: the ViT's blocks add nothing sure."
    if growth is not None and (gain := growth.twice_interval[0] - growth.all) > 0:
        most = "would help most" if gain > abs(teacher.ahead) else "would help"
        alone += (
            f" More images {most}: twice as many would bring the frozen features from {growth.all:.1f} % to about "
            f"{growth.twice:.1f} %."
        )
    if low > 0:
        return f"Take the student: {beside}, at {size}{speed}.{alone}"
    if high < 0:
        return f"Take the teacher where its size allows it: {beside}; the student has {size}{speed}.{alone}"
    return f"Take the student: as good as the teacher within the interval ({beside}), at {size}{speed}.{alone}"
