import random

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.distiller import Distiller, DistillInputs, DistillTask, WorkerContext
from tvt_ray.distillation.losses import LossSettings
from tvt_ray.distillation.settings import DistillSettings

SETTINGS = DistillSettings(
    epochs=3, batch_size=32, lr=2e-3, warmup_epochs=1, augment=AugmentSettings(scale=(0.6, 1.0), hflip=0)
)


def few(split, count):
    return split.take(torch.arange(count).numpy())


@pytest.fixture
def distiller(digits, teacher):
    """Makes distillers of the same small task on 96 digits."""
    space = SMALL_SPACES["autoformer"]
    inputs = DistillInputs(few(digits.train, 96), few(digits.val, 40), few(digits.test, 40), teacher)

    def make(**changes):
        settings = SETTINGS.model_copy(update=changes)
        task = DistillTask(space, space.sample(random.Random(0)), 10, settings)
        return Distiller(task, inputs, WorkerContext(torch.device("cpu")))

    return make


def test_training_lowers_every_term(distiller):
    subject = distiller(epochs=12)
    metrics = [subject.run_epoch() for _ in range(12)]
    for term in ("loss", "cross_entropy", "guidance"):
        assert metrics[-1][term] < metrics[0][term]
    assert subject.done
    assert subject.best_val_acc == max(m["val_acc"] for m in metrics)


def test_resuming_repeats_an_uninterrupted_run_exactly(distiller, tmp_path):
    """Projections, optimiser and schedule come along; the state loads without unpickling objects."""
    whole = distiller()
    while not whole.done:
        whole.run_epoch()
    begun = distiller()
    begun.run_epoch()
    torch.save(begun.state_dict(), tmp_path / "state.pt")
    resumed = distiller()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    while not resumed.done:
        resumed.run_epoch()
    ours, theirs = resumed.guided.state_dict(), whole.guided.state_dict()
    assert ours.keys() == theirs.keys()
    assert any("projections" in key for key in ours)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [m["loss"] for m in resumed.history] == [m["loss"] for m in whole.history]


def test_the_teacher_stays_as_it_is(distiller):
    subject = distiller()
    before = {key: value.clone() for key, value in subject.teacher.state_dict().items()}
    subject.run_epoch()
    assert not any(module.training for module in subject.teacher.modules())
    assert all(torch.equal(before[key], value) for key, value in subject.teacher.state_dict().items())


def test_the_best_weights_are_the_ones_tested(distiller):
    subject = distiller()
    subject.run_epoch()
    best = {key: value.clone() for key, value in subject.best_student.items()}
    subject.best_val_acc = 101.0  # no later epoch is better
    subject.run_epoch()
    subject.test()
    assert all(torch.equal(best[key], value) for key, value in subject.guided.student.state_dict().items())


def test_learning_rate_warms_up_and_decays_to_the_floor(distiller):
    subject, rates = distiller(epochs=4), []
    step = subject.schedule.step_update
    subject.schedule.step_update = lambda n: (step(n), rates.append(subject.optimizer.param_groups[0]["lr"]))
    while not subject.done:
        subject.run_epoch()
    assert rates[0] == pytest.approx(SETTINGS.warmup_lr)
    assert 0.8 * SETTINGS.lr < max(rates) <= SETTINGS.lr  # timm's cosine runs on below the warm-up
    assert rates[-1] < 0.1 * SETTINGS.lr
    assert rates.index(max(rates)) == pytest.approx(len(subject.loader), abs=1)


def test_weight_decay_is_on_matrices_alone(distiller):
    subject = distiller()
    names = {id(parameter): name for name, parameter in subject.guided.named_parameters()}
    decayed = {
        names[id(p)] for group in subject.optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    free = set(names.values()) - decayed
    assert {"student.class_token", "student.positions", "student.norm.weight", "student.head.bias"} <= free
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert "student.blocks.0.attention.qkv.weight" in decayed


def test_an_epoch_says_how_it_went(distiller):
    subject = distiller()
    metrics = subject.run_epoch()
    terms = {"loss", "cross_entropy", "guidance"}
    others = {"epoch", "val_acc", "best_val_acc", "lr", "images_per_s", "seconds"}
    assert metrics.keys() == terms | others
    assert metrics["epoch"] == subject.epoch == 1
    assert metrics["loss"] == pytest.approx(metrics["cross_entropy"] + 2.5 * metrics["guidance"], rel=1e-4)
    assert metrics["val_acc"] == subject.accuracy(subject.inputs.val)
    assert subject.history == [metrics]


def test_terms_that_are_off_are_not_reported(distiller):
    metrics = distiller(loss=LossSettings(weights={"logits": 1})).run_epoch()
    assert "logits" in metrics
    assert not metrics.keys() & {"cross_entropy", "guidance"}


def test_a_dataset_smaller_than_a_batch_is_trained_on(distiller):
    subject = distiller(batch_size=500)
    assert len(subject.loader) == 1
    assert subject.run_epoch()["loss"] > 0
