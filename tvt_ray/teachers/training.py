"""Training a teacher on the dataset, where the user brings no weights."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from tvt_ray.data.batches import TransformedSplit, accuracy, eval_loader
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.transforms import teacher_train_transform
from tvt_ray.progress import Meter, say
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.timm_cnn import PREFIX


class TeacherTraining(BaseModel):
    """The published recipe by default: SGD 0.1 with Nesterov momentum 0.9, weight decay 5e-4, cosine, batch 128."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt = 300
    batch_size: PositiveInt = 128
    lr: float | None = Field(None, gt=0)  # None: 0.1 from scratch, 0.01 from pretrained weights
    weight_decay: float = Field(5e-4, ge=0)
    hflip: float = Field(0.5, ge=0, le=1)
    seed: int = 0


def train_teacher(settings: TeacherSettings, training: TeacherTraining, data: Dataset) -> tuple[Teacher, float]:
    """Trains on data.train, keeps the weights of the epoch that does best on data.val: (frozen teacher, percent there).

    Images are loaded at the teacher's size, padded by an eighth, cropped at random and flipped.
    """
    torch.manual_seed(training.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = build_teacher(settings, data.num_classes).to(device)
    say(f"teacher: {settings.name} has no weights yet: training it on {data.name} ({training.epochs} epochs)")
    train = TransformedSplit(data.train, teacher_train_transform(teacher.image_size, training.hflip))
    loader = DataLoader(train, training.batch_size, shuffle=True, drop_last=len(train) > training.batch_size)
    validation = eval_loader(data.val, teacher.image_size)
    fine_tuned = settings.name.startswith(PREFIX) and settings.pretrained is not False
    lr = training.lr or (0.01 if fine_tuned else 0.1)
    parameters = teacher.parameters()
    optimizer = torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=training.weight_decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs * len(loader))
    best, best_state = -1.0, copy.deepcopy(teacher.state_dict())
    images_total = training.epochs * len(loader) * min(training.batch_size, len(train))
    with Meter(f"teacher {settings.name}", images_total, "images") as meter:
        for epoch in range(training.epochs):
            teacher.train()
            for images, labels in loader:
                loss = F.cross_entropy(teacher(images.to(device))[0], labels.to(device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                meter.advance(len(images), f"epoch {epoch + 1} of {training.epochs}, best val {max(best, 0):.1f} %")
            val_acc = evaluate_teacher(teacher, validation, device)
            if val_acc > best:
                best, best_state = val_acc, copy.deepcopy(teacher.state_dict())
    teacher.load_state_dict(best_state)
    return teacher.cpu().freeze(), best


def evaluate_teacher(
    teacher: Teacher, loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"
) -> float:
    """Top-1 accuracy in percent, in evaluation mode."""
    teacher.eval()
    return accuracy(lambda images: teacher(images)[0], loader, device)


def teacher_accuracy(teacher: Teacher, split: Split) -> float:
    """Top-1 accuracy in percent on a split, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = evaluate_teacher(teacher.to(device), eval_loader(split, teacher.image_size), device)
    teacher.cpu()
    return result
