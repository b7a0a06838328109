import dataclasses

import numpy as np
import pytest
import torch

from tvt_ray.data.batches import eval_loader
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining, evaluate_teacher, teacher_accuracy, train_teacher

SETTINGS = TeacherSettings(image_size=16)


@pytest.fixture
def few(digits):
    parts = ((digits.train, 96), (digits.val, 40), (digits.test, 20))
    train, val, test = (split.take(np.arange(count)) for split, count in parts)
    return dataclasses.replace(digits, train=train, val=val, test=test)


def test_training_gives_a_frozen_teacher_and_its_validation_accuracy(few):
    teacher, val_acc = train_teacher(SETTINGS, TeacherTraining(epochs=3, hflip=0, batch_size=32), few)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert val_acc == teacher_accuracy(teacher, few.val)


def test_training_is_fixed_by_its_seed(few):
    training = TeacherTraining(epochs=1, batch_size=32)
    first, again, other = (
        train_teacher(SETTINGS, training.model_copy(update={"seed": seed}), few)[0].state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_a_split_smaller_than_a_batch_is_trained_on(few):
    teacher, _ = train_teacher(SETTINGS, TeacherTraining(epochs=1, batch_size=500), few)
    assert teacher.backbone.bn1.num_batches_tracked == 1


def test_accuracy_is_of_evaluation_mode(few):
    teacher = build_teacher(SETTINGS, 10).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    assert evaluate_teacher(teacher, eval_loader(few.val, 16)) == teacher_accuracy(teacher, few.val)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


@pytest.mark.slow
@pytest.mark.timeout(900)  # 10,000 images through 56 layers
def test_published_resnet56_reaches_its_accuracy(shared_data):
    """Teacher, normalisation and loader are right: 83.20 % was measured independently on these re-encoded images."""
    data = load_dataset(DataSettings(name=f"parquet:{shared_data / 'cifar10'}"))
    weights = shared_data / "resnet_cifar10_weights" / "resnet56_cifar10.safetensors"
    teacher = build_teacher(TeacherSettings(name="resnet56", weights=weights), 10)
    torch.set_num_threads(2)
    assert teacher_accuracy(teacher, data.test) == pytest.approx(83.20, abs=0.05)
    torch.set_num_threads(1)
