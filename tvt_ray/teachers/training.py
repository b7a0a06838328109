"""Training a teacher on the dataset, where the user brings no weights."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from tvt_ray.data.batches import accuracy, eval_loader
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.transforms import AugmentSettings, teacher_train_transform, train_transform
from tvt_ray.progress import Meter, say
from tvt_ray.storage.locations import Location, keep_if_possible, write_atomically
from tvt_ray.strict import Seed, Strict
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.timm_cnn import PREFIX
from tvt_ray.training.loaders import Batch, ShuffledBatches, generators_as_they_were, seed_everything, train_loader
from tvt_ray.training.pace import Pace, divide, finished, measure_pace
from tvt_ray.training.selection import Selection, Weights, resolve_weights
from tvt_ray.training.states import from_bytes, to_bytes

SECONDS_BETWEEN_STATES = 10.0
SETTLING_BATCH = 256


class TeacherTraining(Strict):
    """The published recipe by default: SGD 0.1 with Nesterov momentum 0.9, weight decay 5e-4, cosine, batch 128."""

    epochs: PositiveInt = 300  # passes over the training images
    min_steps: NonNegativeInt = 0  # steps of the optimiser at least, in more epochs where need be
    batch_size: PositiveInt = 128  # images in a batch
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
        """Epochs over a split of so many images."""
        steps = math.ceil(num_images / min(self.batch_size, num_images))
        return max(self.epochs, math.ceil(self.min_steps / steps))


class TeacherTrainer:
    """Holds all that changes while a teacher trains; any epoch's state can be gone on from."""

    def __init__(
        self, settings: TeacherSettings, training: TeacherTraining, data: Dataset, device: torch.device
    ) -> None:
        self.training, self.data, self.device = training, data, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.teacher = build_teacher(settings, data.num_classes).to(device)
        self.batches = ShuffledBatches(data.train.labels, training.batch_size, training.seed)
        self.num_epochs = training.num_epochs(len(data.train))
        fine_tuned = settings.name.startswith(PREFIX) and settings.pretrained is not False
        self.optimizer = torch.optim.SGD(
            self.teacher.parameters(),
            training.lr or (0.01 if fine_tuned else 0.1),
            momentum=0.9,
            weight_decay=training.weight_decay,
            nesterov=True,
        )
        steps = self.num_epochs * len(self.batches)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.selection = Selection(resolve_weights(training.weights, len(data.val), has_ema=False))
        self.epoch = 0
        self.loader = self._loader(0)

    def _loader(self, num_workers: int) -> DataLoader[Batch]:
        return train_loader(
            self.data.train, teacher_transform(self.training, self.teacher.image_size), self.batches, num_workers
        )

    def load_with(self, num_workers: int) -> None:
        """From now on, so many processes load and augment images (0: this one)."""
        self.loader = self._loader(num_workers)

    @property
    def done(self) -> bool:
        """Whether all epochs are behind it."""
        return self.epoch >= self.num_epochs

    def run_epoch(self, on_batch: Callable[[int], None]) -> None:
        """Trains for an epoch and validates. `on_batch` hears how many images each batch had."""
        self.teacher.train()
        self.batches.set_epoch(self.epoch)
        for step, (images, labels) in enumerate(self.loader):
            seed_everything(f"{self.training.seed}/{self.epoch}/{step}")  # of dropout, where a CNN has some
            self._gradients(images, labels)
            self.optimizer.step()
            self.schedule.step()
            on_batch(len(images))
        self.epoch += 1
        val_acc = evaluate_teacher(self.teacher, eval_loader(self.data.val, self.teacher.image_size), self.device)
        self.selection.offer(self.epoch, val_acc, self.teacher.state_dict())

    def _gradients(self, images: Tensor, labels: Tensor) -> None:
        logits = self.teacher(images.to(self.device))[0]
        self.optimizer.zero_grad()
        loss = F.cross_entropy(logits, labels.to(self.device), label_smoothing=self.training.smoothing)
        loss.backward()  # type: ignore[no-untyped-call]

    def measure(self, cpus: int) -> Pace:
        """What a batch takes on one thread and on `cpus`; weights and BatchNorm's statistics stay as they are."""
        kept = {key: value.clone() for key, value in self.teacher.state_dict().items()}
        pace = measure_pace(self._measure_batch, cpus)
        self.optimizer.zero_grad()
        self.teacher.load_state_dict(kept)
        return pace

    def _measure_batch(self) -> Pace:
        start = time.perf_counter()
        images, labels = next(iter(self.loader))
        loaded = time.perf_counter()
        self._gradients(images, labels)
        return Pace(loaded - start, finished(self.device) - loaded, on_gpu=self.device.type == "cuda")

    def finish(self) -> tuple[Teacher, float]:
        """The frozen teacher with the weights that are kept, its statistics settled; percent on validation."""
        self.teacher.load_state_dict(self.selection.state)
        settle(self.teacher, self.data.train, self.device)
        val_acc = evaluate_teacher(self.teacher, eval_loader(self.data.val, self.teacher.image_size), self.device)
        return self.teacher.cpu().freeze(), val_acc

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; loads with weights_only=True."""
        return {
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "selection": self.selection.state_dict(),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.selection.load_state_dict(state["selection"])
        self.epoch = state["epoch"]


def train_teacher(
    settings: TeacherSettings, training: TeacherTraining, data: Dataset, state_file: Location | None = None
) -> tuple[Teacher, float]:
    """Trains on data.train, on the GPU if there is one: (frozen teacher, percent on data.val).

    `state_file`: where the state is kept every few seconds, and what an interrupted training goes on from.
    """
    device, threads = torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.get_num_threads()
    trainer = TeacherTrainer(settings, training, data, device)
    if state_file is not None and state_file.exists():
        trainer.load_state_dict(from_bytes(state_file.read_bytes(), device))
    name, epochs = settings.name, trainer.num_epochs
    say(f"teacher: {name} has no weights yet: training it on {data.name} ({epochs - trainer.epoch} epochs)")
    try:
        with generators_as_they_were():
            _train(trainer, state_file, name)
            return trainer.finish()
    finally:
        torch.set_num_threads(threads)


def _train(trainer: TeacherTrainer, state_file: Location | None, name: str) -> None:
    cpus = min(torch.get_num_threads(), os.cpu_count() or 1)
    division = divide(cpus, trainer.measure(cpus))
    torch.set_num_threads(division.threads)
    trainer.load_with(division.loader_workers)
    images, kept = trainer.num_epochs * len(trainer.data.train), time.monotonic()
    with Meter(f"teacher {name}", images, "images") as meter:
        meter.advance(trainer.epoch * len(trainer.data.train))
        while not trainer.done:
            note = f"epoch {trainer.epoch + 1} of {trainer.num_epochs}, val {max(trainer.selection.val_acc, 0):.1f} %"
            trainer.run_epoch(lambda count, note=note: meter.advance(count, note))  # type: ignore[misc]
            if state_file is not None and time.monotonic() - kept >= SECONDS_BETWEEN_STATES:
                keep_if_possible(lambda: _keep(trainer, state_file), "an unfinished teacher")
                kept = time.monotonic()


def _keep(trainer: TeacherTrainer, state_file: Location) -> None:
    write_atomically(state_file, to_bytes(trainer.state_dict()))


def teacher_transform(training: TeacherTraining, image_size: int) -> Callable[[Image.Image], Tensor]:
    """The augmentation that the settings ask for, at the teacher's size."""
    if training.augment is None:
        return teacher_train_transform(image_size, training.hflip)
    return train_transform(training.augment, image_size)


def settle(teacher: Teacher, split: Split, device: torch.device | None = None) -> None:
    """BatchNorm's statistics become those of a split's images as they are evaluated: an average over all of them.

    A short training leaves running averages that its last steps, at their learning rate and augmentation, have moved.
    """
    sizes = (size for size in range(SETTLING_BATCH, 1, -1) if len(split) % size != 1)  # one image has no variance
    update_bn(eval_loader(split, teacher.image_size, next(sizes, 2)), teacher.requires_grad_(False), device)


def evaluate_teacher(teacher: Teacher, loader: DataLoader[Batch], device: torch.device | str = "cpu") -> float:
    """Top-1 accuracy in percent, in evaluation mode."""
    teacher.eval()
    return accuracy(lambda images: teacher(images)[0], loader, device)


def teacher_accuracy(teacher: Teacher, split: Split, image_size: int | None = None) -> float:
    """Top-1 accuracy in percent on a split, on the GPU if there is one.

    `image_size`: pixels of the images that the teacher is given, such as a student's; None: its own.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = eval_loader(split, image_size or teacher.image_size)
    result = evaluate_teacher(teacher.to(device), loader, device)
    teacher.cpu()
    return result
