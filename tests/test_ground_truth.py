"""What ground truth is made of."""

import itertools
import json

import pytest
import torch

from benchmarks.ground_truth import ground_truth_line, last_accuracies, sample_archs, train_cohort
from tests.conftest import SMALL_SPACES
from tests.distillation.conftest import SETTINGS, SPACE, few, same
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.judging.truth import read_ground_truth
from tvt_ray.storage.locations import write_atomically
from tvt_ray.training.learner import WorkerContext


def test_a_larger_sample_begins_with_the_smaller_one(space):
    small, large = sample_archs(space, 3, seed=1), sample_archs(space, 6, seed=1)
    assert large[:3] == small
    assert len(set(large)) == 6
    assert sample_archs(space, 6, seed=2) != large


def test_more_than_there_are_cannot_be_sampled(space):
    with pytest.raises(ValueError, match=rf"the space has {space.size():,} architectures"):
        sample_archs(space, space.size() + 1, seed=0)


def test_a_line_is_read_as_it_was_written(tmp_path):
    space = SMALL_SPACES["pit"]
    (arch,) = sample_archs(space, 1, seed=0)
    line = ground_truth_line(DistillTask(space, arch, 10, DistillSettings()), "x_kd_acc", 81.23456789)
    write_atomically(tmp_path / "truth.jsonl", json.dumps(line).encode())
    ((entry,),) = [truth.entries for truth in read_ground_truth(tmp_path / "truth.jsonl", space, 10)]
    assert (entry.arch, entry.params) == (arch, space.cost(arch, 10).params)
    assert entry.accuracies == {"x_kd_acc": 81.2346}


@pytest.mark.slow
def test_an_interrupted_cohort_ends_as_an_undisturbed_one(digits, teacher, tmp_path):
    """Accuracies are of the last weights, whichever the settings would keep."""
    inputs = DistillInputs(few(digits.train, 96), few(digits.val, 40), few(digits.test, 40), teacher)
    settings = SETTINGS.model_copy(update={"epochs": 2, "weights": "best"})
    tasks = [DistillTask(SPACE, arch, 10, settings) for arch in sample_archs(SPACE, 3, seed=0)]
    undisturbed = last_accuracies(train_cohort(tasks, inputs, tmp_path / "whole.pt"))
    batches = itertools.count()

    def stop(images):
        if next(batches) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cohort(tasks, inputs, tmp_path / "cut.pt", on_batch=stop)
    seen = []
    assert last_accuracies(train_cohort(tasks, inputs, tmp_path / "cut.pt", on_batch=seen.append)) == undisturbed
    assert len(seen) == 3  # the second epoch alone
    whole, cut = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "cut.pt"))
    assert all(same(cut[name]["guided"], whole[name]["guided"]) for name in whole)
    cohort = Cohort(tasks, inputs, WorkerContext(torch.device("cpu")))
    cohort.load_state_dict(whole)
    students = {arch_id: learner.student for arch_id, learner in cohort.learners.items()}
    assert undisturbed == cohort.accuracies(students, inputs.test)
