"""Students that train side by side on the same batches: images are augmented, and seen by the teacher, once for all.

Every training is one of a cohort, of a single student or of many; any number of workers, resumable at every epoch.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import train_transform
from tvt_ray.distillation.learner import DistillTask, StudentLearner
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.training.kept import Kept
from tvt_ray.training.learner import Outputs, TrainBatch, WorkerContext
from tvt_ray.training.loaders import Key, ShuffledBatches, generators_as_they_were, seed_everything
from tvt_ray.training.loop import Loop, Validation
from tvt_ray.training.pace import Pace, autocast, fast_precision, finished
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.weight_source import Source

# that students of a cohort may have each for itself
OWN_SETTINGS = ("loss", "lr", "min_lr", "weight_decay", "init", "start", "positions", "stem", "stem_frozen_epochs")
TAUGHT = "teacher"  # what it makes of images, among what is kept
Tasks: TypeAlias = Mapping[str, DistillTask]  # by places in a folder, which tell seeds apart


@dataclass(frozen=True)
class DistillInputs:
    """What all students of a run share: images that need no disk, the frozen teacher, and weights to begin with."""

    train: Split
    val: Split
    test: Split
    teacher: Teacher
    init: Source | None = None  # of students whose settings name some; None: all begin with what is drawn


class Cohort(Loop[StudentLearner]):
    """Students with one recipe, dataset and teacher. What a student learns does not depend on who learns beside it.

    Losses may differ, since they concern a student alone: one may follow the teacher beside one that does not. So may
    `init`: a student begins with the inputs' weights where its settings name some, else with what is drawn.
    """

    def __init__(self, tasks: Sequence[DistillTask], inputs: DistillInputs, worker: WorkerContext) -> None:
        """All tasks have the same image size, classes, and settings but for OWN_SETTINGS, and names of their own.

        Raises ValueError otherwise.
        """
        ensure_torchvision()
        settings, image_size, num_classes = shared_by(tasks)
        self.settings, self.inputs, labels = settings, inputs, inputs.train.labels
        self.taught = any(task.settings.loss.follow_teacher for task in tasks)
        self.teacher = inputs.teacher.to(worker.device).freeze()
        self.targets = Targets(settings, labels, num_classes)
        batches = ShuffledBatches(
            labels,
            settings.batch_size,
            settings.seed,
            worker.rank,
            worker.world_size,
            settings.sampling,
            settings.num_views,
        )
        (channels, width), steps = _sizes_of(self.teacher, worker.device), len(batches)
        shared = (channels, width, len(inputs.val), steps, worker, inputs.init, self.teacher.backbone.network)
        learners = [StudentLearner(task, *shared) for task in tasks]
        self._validations = dict[str, Validation]()  # by kind of frozen stem
        self.kept = Kept(settings.num_views is not None and not self.targets.mixes)
        super().__init__(
            {learner.task.name: learner for learner in learners},
            inputs.train,
            inputs.val,
            image_size,
            train_transform(settings.augment, image_size),
            batches,
            settings.epochs,
            worker,
            settings.channels_last,
        )

    @torch.no_grad()
    def prepare(self, step: int, images: Tensor, labels: Tensor, keys: Sequence[Key] = ()) -> TrainBatch:
        """Images and labels mixed as the settings say, and what the teacher and frozen stems make of them.

        What is made of a view that comes again is kept.
        """
        seed_everything(f"{self.settings.seed}/{self.epoch}/{step}/{self.worker.rank}")  # of mixing
        images, targets = self.targets(images, labels)
        with autocast(fast_precision(self.settings.amp, self.worker.device), self.worker.device):
            made = {name: self.kept.of(name, keys, make, images) for name, make in self._makers().items()}
        taught = self._outputs([each.float() for each in made.pop(TAUGHT, [])])
        stems = {name: features.float() for name, (features,) in made.items()}
        return TrainBatch(step, images, targets, self.sizes[step], taught, stems)

    def _makers(self) -> dict[str, Callable[[Tensor], list[Tensor]]]:
        """What is made of images beside what trains: by the teacher, and by each kind of stem that is frozen."""
        behind = [learner for learner in self.learners.values() if learner.epoch == self.epoch]
        stems = {learner.frozen_stem: learner for learner in behind if learner.frozen_stem}
        makers: dict[str, Callable[[Tensor], list[Tensor]]] = {kind: each.stem_features for kind, each in stems.items()}
        return {TAUGHT: self._ask_teacher, **makers} if self.taught else makers

    def validate(self, models: Mapping[tuple[str, str], nn.Module]) -> dict[tuple[str, str], float]:
        """As of any loop; of networks whose stems are frozen, from what those make of the images: computed once."""
        by_stem: dict[str, dict[tuple[str, str], nn.Module]] = {}
        for key, model in models.items():
            by_stem.setdefault(self.learners[key[0]].frozen_stem, {})[key] = model
        found: dict[tuple[str, str], float] = {}
        for kind, some in by_stem.items():
            found |= self._validation_of(kind, next(iter(some))[0]).accuracies(some)
        return found

    def _validation_of(self, kind: str, name: str) -> Validation:
        if not kind:
            return self.validation
        if kind not in self._validations:
            see, device = self.learners[name].stem_features, self.worker.device
            self._validations[kind] = self.validation.seen_by(lambda images: see(images.to(device))[0])
        return self._validations[kind]

    def measure(self, cpus: int, learns: bool = False) -> Pace:
        """As of any loop, with stems that train: the epochs in which they are frozen take less."""
        for learner in self.learners.values():
            learner.thawed = True
        pace = super().measure(cpus, learns)
        for learner in self.learners.values():
            learner.thawed = False
        return pace

    @generators_as_they_were()
    def frozen_seconds(self, threads: int) -> tuple[float, float]:
        """What a batch takes while stems are frozen: seen for the first time, and once what comes of it is known.

        Each the second of two, with a step of the optimiser: the training is none any more.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        for _ in range(2):
            start = time.perf_counter()
            images, labels = self._placed(next(iter(self.loader)))
            batch = self.prepare(0, images, labels)
            seen = finished(self.worker.device)
            for learner in self.learners.values():
                learner.train_step(batch)
            end = finished(self.worker.device)
        torch.set_num_threads(before)
        return end - start, end - seen

    def _ask_teacher(self, images: Tensor) -> list[Tensor]:
        """What losses compare with: logits, and where one asks for them features and maps."""
        terms, teacher = self._terms, self.teacher
        logits, maps, features = teacher.outputs(images, "features" in terms)
        return [logits, *([] if features is None else [features]), *(maps if "guidance" in terms else ())]

    def _outputs(self, asked: Sequence[Tensor]) -> Outputs:
        """What `_ask_teacher` gave."""
        if not asked:
            return Outputs(torch.empty(0))
        first = 2 if "features" in self._terms else 1
        return Outputs(asked[0], tuple(asked[first:]), asked[1] if first == 2 else None)

    @property
    def _terms(self) -> set[str]:
        return {name for learner in self.learners.values() for name in learner.task.settings.loss.terms}

    def knows(self, learners: Sequence[StudentLearner], keys: Sequence[Sequence[Key]]) -> bool:
        """Whether all stems are frozen, and what they and the teacher make of these images was kept."""
        names = self._makers()
        return all(learner.frozen_stem for learner in learners) and all(
            self.kept.has(name, key) for name in names for batch in keys for key in batch
        )

    def test(self) -> dict[str, float]:
        """Test accuracy in percent of each student with the weights that are kept, which it then holds."""
        return self.accuracies({name: learner.kept() for name, learner in self.learners.items()}, self.inputs.test)


@torch.inference_mode()
def _sizes_of(teacher: Teacher, device: torch.device) -> tuple[list[int], int]:
    """Channels of its maps, and of what its classifier reads."""
    images = torch.zeros(1, 3, teacher.image_size, teacher.image_size, device=device)
    _, maps, features = teacher.outputs(images, with_features=True)
    return [stage.shape[1] for stage in maps], 0 if features is None else features.shape[1]


def shared_by(tasks: Sequence[DistillTask]) -> tuple[DistillSettings, int, int]:
    """Settings, with the first one's loss and beginning, image size in pixels, and classes.

    Raises ValueError where they differ.
    """
    own = {name: getattr(tasks[0].settings, name) for name in OWN_SETTINGS}
    shared = [(task.settings.model_copy(update=own), task.space.image_size, task.num_classes) for task in tasks]
    if any(each != shared[0] for each in shared):
        raise ValueError("a cohort's students share recipe, image size and classes")
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"a cohort's students have names of their own; got {[task.name for task in tasks]}")
    return shared[0]


def cohorts_of(tasks: Tasks, count: int, largest: int | None = None) -> list[Tasks]:
    """Groups of tasks of one seed, none above `largest`, by which `count` cohorts at a time are done soonest.

    What students of a cohort share, images and teacher, is reckoned to take as long as one of them.
    """
    by_seed: dict[int, list[str]] = {}
    for name, task in tasks.items():
        by_seed.setdefault(task.settings.seed, []).append(name)

    def parts(size: int) -> list[list[str]]:
        counts = [(names, math.ceil(len(names) / size)) for names in by_seed.values()]
        return [names[first::each] for names, each in counts for first in range(each)]

    def time(size: int) -> int:
        ends = [0] * count
        for part in parts(size):
            heapq.heapreplace(ends, ends[0] + len(part) + 1)
        return max(ends)

    size = min(range(1, min(largest or len(tasks), len(tasks)) + 1), key=time)
    return [{name: tasks[name] for name in part} for part in parts(size)]


class Targets:
    """Mixes images and makes targets as the settings say; with all of it off, targets are the labels.

    Mixing is timm's (mixup, Zhang et al. 2018; CutMix, Yun et al. 2019), one draw for a batch. It pairs the images of a
    worker's share, so with it on, what is learned depends on the number of workers.
    """

    def __init__(self, settings: DistillSettings, labels: NDArray[np.int64], num_classes: int) -> None:
        self.num_classes, self.smoothing = num_classes, settings.smoothing
        self.mixes = bool(settings.mixup or settings.cutmix)
        self.class_weights = _balanced(labels, num_classes) if settings.class_weights == "balanced" else None
        self.mixup = _timm_mixup(settings, num_classes) if self.mixes else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and labels (B,) -> images, and labels (B,) or weighted class shares (B, classes)."""
        if self.mixup is None and self.smoothing == 0 and self.class_weights is None:
            return images, labels
        shares = self._smooth(labels)
        paired = len(images) // 2 * 2  # timm mixes an even number; the last image of an odd batch stays as it is
        if self.mixup is not None and paired:
            mixed, shares[:paired] = self.mixup(images[:paired].clone(), labels[:paired])
            images = torch.cat([mixed, images[paired:]])
        if self.class_weights is not None:
            shares = shares * self.class_weights.to(shares.device)
        return images, shares

    def _smooth(self, labels: Tensor) -> Tensor:
        hot = F.one_hot(labels, self.num_classes).float()
        return hot * (1 - self.smoothing) + self.smoothing / self.num_classes


def _timm_mixup(settings: DistillSettings, num_classes: int) -> Any:
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        label_smoothing=settings.smoothing,
        num_classes=num_classes,
    )


def _balanced(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """Inverse to how often a class occurs, 1 for an image on average: (classes,); 0 for a class that does not occur."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.divide(len(labels) / max((counts > 0).sum(), 1), counts, out=np.zeros(num_classes), where=counts > 0)
    return torch.from_numpy(weights).float()
