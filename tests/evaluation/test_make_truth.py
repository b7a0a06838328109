"""What ground truth is made of."""

import json

import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.distillation.distiller import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.evaluation.make_truth import ground_truth_line, sample_archs
from tvt_ray.evaluation.truth import read_ground_truth
from tvt_ray.storage.locations import write_atomically


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
