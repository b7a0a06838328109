"""A small distillation of digits."""

import pytest
import torch

from benchmarks.ground_truth import sample_archs
from tests.conftest import SMALL_SPACES
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.training.learner import WorkerContext

SPACE = SMALL_SPACES["autoformer"]
SETTINGS = DistillSettings(
    epochs=3, batch_size=32, lr=2e-3, warmup_epochs=1, augment=AugmentSettings(scale=(0.6, 1.0), hflip=0)
)


def few(split, count):
    return split.take(torch.arange(count).numpy())


@pytest.fixture
def inputs(digits, teacher):
    """100 digits: three batches of 32 and one of 4."""
    return DistillInputs(few(digits.train, 100), few(digits.val, 40), few(digits.test, 40), teacher)


@pytest.fixture
def make(inputs):
    """Makes cohorts of the first `count` of some architectures."""

    def make(count=1, **changes):
        settings = SETTINGS.model_validate({**SETTINGS.model_dump(), **changes})
        tasks = [DistillTask(SPACE, arch, 10, settings) for arch in sample_archs(SPACE, count, seed=0)]
        return Cohort(tasks, inputs, WorkerContext(torch.device("cpu")))

    return make


def only(cohort):
    (learner,) = cohort.learners.values()
    return learner


def train(cohort):
    while not cohort.done:
        cohort.run_epoch()
    return cohort


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
