"""The loop that teachers and students share; what it gives is tested with both."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tvt_ray.data.transforms import teacher_train_transform
from tvt_ray.training import loop
from tvt_ray.training.learner import Learner, WorkerContext
from tvt_ray.training.loaders import ShuffledBatches
from tvt_ray.training.loop import Loop, Validation
from tvt_ray.training.pace import Division, Pace

CPU = WorkerContext(torch.device("cpu"))


class Linear(Learner):
    """A layer on pixels: what it takes to train on the loop."""

    def __init__(self, steps):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 10))
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        super().__init__(network, network, optimizer, CPU, steps, num_val=20, weights="last")

    def losses(self, model, batch):
        return {"loss": F.cross_entropy(model(batch.images), batch.targets)}

    def _begin_step(self, step):
        pass


@pytest.fixture
def subject(digits):
    train, val = digits.train.take(np.arange(64)), digits.val.take(np.arange(20))
    batches = ShuffledBatches(train.labels, 32, seed=0)
    learners = {"linear": Linear(len(batches))}
    return Loop(learners, train, val, 8, teacher_train_transform(8, 0), batches, 3, CPU)


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, [1, 2, 3]), (math.inf, [3])])
def test_states_are_kept_after_the_last_epoch_and_seldom_after_short_ones(subject, monkeypatch, seconds, kept):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_STATES", seconds)
    heard, states = [], []
    subject.train_until(3, heard.append, lambda: states.append(subject.epoch))
    assert states == kept
    assert [metrics["linear"]["epoch"] for metrics in heard] == [1, 2, 3]
    assert heard[-1]["linear"]["loss"] < heard[0]["linear"]["loss"]


def test_a_training_stops_where_it_is_told_to_and_goes_on_from_there(subject):
    subject.train_until(2, lambda metrics: None, lambda: None)
    assert subject.epoch == 2
    assert not subject.done
    subject.train_until(3, lambda metrics: None, lambda: None)
    assert subject.done


def test_measuring_moves_no_statistics(subject):
    before = {key: value.clone() for key, value in subject.learners["linear"].network.state_dict().items()}
    subject.measure(1)
    after = subject.learners["linear"].network.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_a_step_takes_the_least_that_was_measured_after_warming_up(subject, monkeypatch):
    """By turns on one thread and on several: what others do meanwhile makes a step longer, and never shorter."""
    seconds = iter([(0.1, 0.5), (0.1, 0.5), (3.0, 9.0), (1.0, 4.0), (2.0, 8.0), (1.0, 9.0), (5.0, 8.5), (1.0, 5.0)])
    threads = []
    monkeypatch.setattr(subject, "_batch_seconds", lambda count, learns: threads.append(count) or next(seconds))
    assert subject.measure(2) == Pace(load_s=2.0, step_s=8.0, scaling=1.0, on_gpu=False)
    assert threads == [1, 2] * 4


def test_cores_are_divided_as_they_are_told_to_and_one_is_not_measured(subject, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(subject, "measure", lambda cpus: pytest.fail("was measured"))
    assert subject.division(9, loader_workers=1) == Division(1, 3)
    assert subject.division(1) == Division(0, 1)


class Always(nn.Module):
    """Names one class, whatever it sees."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, images):
        return F.one_hot(torch.full((len(images),), self.label), 10)


@pytest.mark.parametrize("bytes_kept", [0, loop.BYTES_KEPT])
def test_each_has_its_own_accuracy_in_every_pass(digits, monkeypatch, bytes_kept):
    monkeypatch.setattr(loop, "BYTES_KEPT", bytes_kept)
    subject = Validation(digits.val, 8, CPU)
    expected = {label: pytest.approx(100 * np.mean(digits.val.labels == label)) for label in (3, 8)}
    for _ in range(2):
        assert subject.accuracies({label: Always(label) for label in expected}) == expected


@pytest.mark.parametrize(("bytes_kept", "passes"), [(0, 2), (loop.BYTES_KEPT, 1)])
def test_a_small_split_is_read_once(digits, monkeypatch, bytes_kept, passes):
    monkeypatch.setattr(loop, "BYTES_KEPT", bytes_kept)
    read, subject = [], Validation(digits.val.take(np.arange(20)), 8, CPU)
    transform = subject.batches.dataset.transform
    subject.batches.dataset.transform = lambda image: read.append(1) or transform(image)
    for _ in range(2):
        subject.accuracies({"": Always(0)})
    assert len(read) == 20 * passes
