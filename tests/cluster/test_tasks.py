"""A teacher that is trained on the cluster."""

import dataclasses

import numpy as np
import pytest
import torch

from tvt_ray.cluster import tasks
from tvt_ray.cluster.tasks import cluster_trainer
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining, train_teacher

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SETTINGS, TRAINING = TeacherSettings(image_size=16), TeacherTraining(epochs=2, batch_size=32)


@pytest.fixture
def few(digits):
    return dataclasses.replace(digits, train=digits.train.take(np.arange(96)), val=digits.val.take(np.arange(40)))


@pytest.fixture
def trained_here(monkeypatch):
    calls = []
    monkeypatch.setattr(tasks, "train_teacher", lambda *args: calls.append(args) or train_teacher(*args))
    return calls


def test_where_the_cluster_has_a_gpu_and_this_machine_none_a_job_trains_it(cluster, few, trained_here, tmp_path):
    """The GPU exists in name only, so the job computes on the CPU; its numbers are those of a training here."""
    teacher, val_acc = cluster_trainer(cluster)(SETTINGS, TRAINING, few, tmp_path / "state")
    assert trained_here == []
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    here, expected = train_teacher(SETTINGS, TRAINING, few)
    assert val_acc == expected
    for ours, theirs in zip(teacher.state_dict().values(), here.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_on_this_machine_alone_it_is_trained_here(few, trained_here, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster_trainer(None)(SETTINGS, TRAINING, few, tmp_path / "state")
    assert len(trained_here) == 1
