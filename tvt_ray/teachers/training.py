"""Training a teacher on the dataset, where the user brings no weights, and whether a teacher is worth following."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.optim.swa_utils import update_bn

from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.transforms import AugmentSettings, eval_loader, teacher_train_transform, train_transform
from tvt_ray.errors import UsageError
from tvt_ray.progress import Meter, say
from tvt_ray.storage.locations import Location, keep_if_possible, write_atomically
from tvt_ray.strict import Seed, Strict
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.head import teach_head
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.timm_cnn import PREFIX
from tvt_ray.training.learner import Learner, TrainBatch, Weights, WorkerContext, from_bytes, to_bytes
from tvt_ray.training.loaders import ShuffledBatches, generators_as_they_were, seed_everything
from tvt_ray.training.loop import Loop
from tvt_ray.training.pace import device_here

Hits: TypeAlias = NDArray[np.bool_]  # (images,): whether an image was named right
SETTLING_BATCH = 256
STANDARD_ERRORS = 2  # that a teacher is above the majority, to be followed


class TeacherTraining(Strict):
    """The published recipe by default: SGD 0.1 with Nesterov momentum 0.9, weight decay 5e-4, cosine, batch 128.

    Of published weights it trains a head on features alone, as practitioners do first; what else there is concerns
    those that are trained from the first convolution on.
    """

    later = frozenset({"method"})

    epochs: PositiveInt = 300  # passes over the training images
    min_steps: NonNegativeInt = 0  # steps of the optimiser at least, in more epochs where need be
    batch_size: PositiveInt = 128  # images in a batch
    # head: a linear classifier on frozen features, by logistic regression; all: every weight, by SGD; auto: head where
    # the teacher starts from published weights or a file of them, else all
    method: Literal["auto", "head", "all"] = "auto"
    # learning rate of the first step; None: 0.1 from scratch, 0.01 from pretrained weights
    lr: float | None = Field(None, gt=0)
    weight_decay: float = Field(5e-4, ge=0)  # of all parameters
    smoothing: float = Field(0.0, ge=0, lt=1)  # label smoothing
    hflip: float = Field(0.5, ge=0, le=1)  # probability of a mirror image, where `augment` is None
    # as distill.augment; None: padded by an eighth, cropped at random, flipped, as for CIFAR
    augment: AugmentSettings | None = None
    # kept after the best epoch on validation, or the last; auto: best where 2,500 images or more validate, else last
    weights: Weights = "auto"
    seed: Seed = 0  # of first weights, order of images and augmentation

    def num_epochs(self, num_images: int) -> int:
        """How often it goes over a split of so many images: `epochs`, or more where `min_steps` asks for them."""
        steps = math.ceil(num_images / min(self.batch_size, num_images))
        return max(self.epochs, math.ceil(self.min_steps / steps))


class TeacherLearner(Learner):
    """A teacher: SGD, cosine, and cross-entropy."""

    def __init__(
        self, settings: TeacherSettings, training: TeacherTraining, data: Dataset, steps: int, device: torch.device
    ) -> None:
        """`steps`: batches in an epoch."""
        self.training = training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.teacher = build_teacher(settings, data.num_classes).to(device)
        fine_tuned = settings.name.startswith(PREFIX) and settings.pretrained is not False
        optimizer = torch.optim.SGD(
            self.teacher.parameters(),
            training.lr or (0.01 if fine_tuned else 0.1),
            momentum=0.9,
            weight_decay=training.weight_decay,
            nesterov=True,
        )
        total = training.num_epochs(len(data.train)) * steps
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        worker, num_val = WorkerContext(device), len(data.val)
        super().__init__(self.teacher, self.teacher, optimizer, worker, steps, num_val, training.weights)

    def losses(self, model: Any, batch: TrainBatch) -> dict[str, Tensor]:
        """The cross-entropy with labels, smoothed as the settings say."""
        logits = model(batch.images)[0]
        return {"loss": F.cross_entropy(logits, batch.targets, label_smoothing=self.training.smoothing)}

    def _begin_step(self, step: int) -> None:
        seed_everything(f"{self.training.seed}/{self.epoch}/{step}")  # of dropout, where a CNN has some

    def _update(self, step: int) -> None:
        super()._update(step)
        self.schedule.step()

    def _parts(self) -> dict[str, Any]:
        return {"teacher": self.teacher, "schedule": self.schedule, **super()._parts()}


class TeacherTrainer(Loop[TeacherLearner]):
    """A teacher's training on a dataset."""

    def __init__(
        self, settings: TeacherSettings, training: TeacherTraining, data: Dataset, device: torch.device
    ) -> None:
        self.data = data
        batches = ShuffledBatches(data.train.labels, training.batch_size, training.seed)
        self.learner = TeacherLearner(settings, training, data, len(batches), device)
        self.teacher, size = self.learner.teacher, self.learner.teacher.image_size
        num_epochs, learners = training.num_epochs(len(data.train)), {settings.name: self.learner}
        if training.augment is None:
            transform = teacher_train_transform(size, training.hflip)
        else:
            transform = train_transform(training.augment, size)
        super().__init__(learners, data.train, data.val, size, transform, batches, num_epochs, self.learner.worker)

    def finish(self) -> tuple[Teacher, float]:
        """The frozen teacher with the weights that are kept, its statistics settled; percent on validation."""
        self.learner.kept()
        settle(self.teacher, self.train, self.worker.device)
        val_acc = teacher_accuracy(self.teacher, self.data.val)
        return self.teacher.freeze(), val_acc


def train_teacher(
    settings: TeacherSettings, training: TeacherTraining, data: Dataset, state_file: Location | None = None
) -> tuple[Teacher, float]:
    """Trains on data.train, on the GPU if there is one: (frozen teacher, percent on data.val).

    `state_file`: where the state is kept every few seconds, and what an interrupted training goes on from.
    """
    if trains_head(settings, training):
        teacher = build_teacher(settings, data.num_classes)
        teach_head(teacher, data.train, training.seed, device_here())
        return teacher.freeze(), teacher_accuracy(teacher, data.val)
    trainer = TeacherTrainer(settings, training, data, device_here())
    learner, epochs = trainer.learner, trainer.num_epochs
    if state_file is not None and state_file.exists():
        learner.load_state_dict(from_bytes(state_file.read_bytes()))
    say(f"teacher: {settings.name} has no weights yet: training it on {data.name} ({epochs - trainer.epoch} epochs)")

    def keep() -> None:
        if state_file is not None and not trainer.done:
            state = to_bytes(learner.state_dict())
            keep_if_possible(lambda: write_atomically(state_file, state), "an unfinished teacher")

    def count(images: int) -> None:
        val_acc = max(learner.selection.val_acc, 0)
        meter.advance(images, f"epoch {trainer.epoch + 1} of {epochs}, val {val_acc:.1f} %")

    title, images = f"teacher {settings.name}", len(data.train)
    with Meter(title, epochs * images, "images", trainer.epoch * images) as meter:
        return taught(trainer, keep, count)


def taught(
    trainer: TeacherTrainer,
    keep: Callable[[], None] = lambda: None,
    count: Callable[[int], None] = lambda images: None,
) -> tuple[Teacher, float]:
    """Trained to its end, on all threads of this process: (frozen teacher, percent on validation).

    `keep` is called when the state is to be written, `count` after each batch with its images.
    """
    threads = torch.get_num_threads()
    try:
        with generators_as_they_were():
            trainer.use(trainer.division(threads))
            trainer.train_until(trainer.num_epochs, lambda metrics: None, keep, count)
            return trainer.finish()
    finally:
        torch.set_num_threads(threads)


def trains_whole(settings: TeacherSettings, training: TeacherTraining) -> bool:
    """Whether every weight of a teacher is trained, from drawn ones or from those that others trained."""
    return settings.weights is None and not trains_head(settings, training)


def trains_head(settings: TeacherSettings, training: TeacherTraining) -> bool:
    """Whether a teacher's head alone is trained. Raises UsageError where that was asked for and cannot be."""
    if settings.weights is not None:
        return False
    pretrained = settings.name.startswith(PREFIX) and settings.pretrained is not False
    if training.method == "head" and not pretrained:
        raise UsageError(
            f"teacher_training.method=head is for a teacher with pretrained weights; {settings.name} has none: give "
            "timm:NAME with teacher.pretrained, or set teacher_training.method=all"
        )
    return pretrained if training.method == "auto" else training.method == "head"


def settle(teacher: Teacher, split: Split, device: torch.device | None = None) -> None:
    """BatchNorm's statistics become those of a split's images as they are evaluated: an average over all of them.

    A short training leaves running averages that its last steps, at their learning rate and augmentation, have moved.
    """
    sizes = (size for size in range(SETTLING_BATCH, 1, -1) if len(split) % size != 1)  # one image has no variance
    update_bn(eval_loader(split, teacher.image_size, next(sizes, 2)), teacher.requires_grad_(False), device)


def teacher_accuracy(teacher: Teacher, split: Split, image_size: int | None = None) -> float:
    """Top-1 accuracy in percent on a split, on the GPU if there is one.

    `image_size`: pixels of the images that the teacher is given, such as a student's; None: its own.
    """
    return 100 * float(teacher_hits(teacher, split, image_size).mean())


@torch.inference_mode()
def teacher_hits(teacher: Teacher, split: Split, image_size: int | None = None) -> Hits:
    """(images,): whether each is named right; otherwise as `teacher_accuracy`."""
    device = device_here()
    teacher.to(device).eval()
    batches = eval_loader(split, image_size or teacher.image_size)
    placed = ((images.to(device).contiguous(memory_format=torch.channels_last), labels) for images, labels in batches)
    hits = [teacher(images)[0].argmax(1).cpu() == labels for images, labels in placed]
    teacher.cpu()
    return torch.cat(hits).numpy()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Verdict:
    """A teacher beside whoever always names the class that has most training images, in percent of validation."""

    accuracy: float
    majority: float
    num_images: int  # that validate

    @property
    def threshold(self) -> float:
        """Two standard errors above the majority: what luck does not explain. At most 100."""
        share = self.majority / 100
        error = 100 * math.sqrt(share * (1 - share) / self.num_images)
        return min(self.majority + STANDARD_ERRORS * error, 100.0)

    @property
    def worth_following(self) -> bool:
        """Whether the teacher reaches the threshold."""
        return self.accuracy >= self.threshold

    def sentence(self) -> str:
        """The figures by which it was decided."""
        return (
            f"it names {self.accuracy:.1f} % of {self.num_images:,} validation images right; the largest class has "
            f"{self.majority:.1f} %, and {STANDARD_ERRORS} standard errors more are {self.threshold:.1f} %"
        )


def judge(teacher: Teacher, data: Dataset) -> Verdict:
    """On validation images, at the teacher's own size."""
    largest = np.bincount(data.train.labels, minlength=data.num_classes).argmax()
    majority = 100 * float(np.mean(data.val.labels == largest))
    return Verdict(teacher_accuracy(teacher, data.val), majority, len(data.val))
