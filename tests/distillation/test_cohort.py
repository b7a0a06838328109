import itertools
import json

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.cohort import Cohort
from tvt_ray.distillation.distiller import DistillInputs, DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.evaluation.make_truth import ground_truth_line, sample_archs, train_cohort

SETTINGS = DistillSettings(
    epochs=2, batch_size=32, lr=2e-3, warmup_epochs=1, augment=AugmentSettings(scale=(0.6, 1.0), hflip=0)
)
SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture
def inputs(digits, teacher):
    few = [split.take(torch.arange(count).numpy()) for split, count in ((digits.train, 96), (digits.test, 60))]
    return DistillInputs(few[0], few[1], few[1], teacher)


@pytest.fixture
def tasks():
    return [DistillTask(SPACE, arch, 10, SETTINGS) for arch in sample_archs(SPACE, 3, seed=0)]


def weights(cohort):
    pairs = zip(cohort.ids, cohort.distillers, strict=True)
    return {arch_id: distiller.guided.state_dict() for arch_id, distiller in pairs}


def same(ours, theirs):
    return all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_what_a_student_learns_does_not_depend_on_who_learns_beside_it(tasks, inputs):
    """Stochastic depth and augmentation draw from generators that the others do not move."""
    together, alone = Cohort(tasks, inputs), Cohort(tasks[1:2], inputs)
    for cohort in (together, alone):
        while not cohort.done:
            cohort.run_epoch()
    name = alone.ids[0]
    assert same(weights(together)[name], weights(alone)[name])


def test_an_interrupted_cohort_ends_as_an_undisturbed_one(tasks, inputs, tmp_path):
    undisturbed = train_cohort(tasks, inputs, tmp_path / "whole.pt")
    batches = itertools.count()

    def stop(images):
        assert images == 96  # 32 images, three students
        if next(batches) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cohort(tasks, inputs, tmp_path / "cut.pt", on_batch=stop)
    seen = []
    assert train_cohort(tasks, inputs, tmp_path / "cut.pt", on_batch=seen.append) == undisturbed
    assert len(seen) == 3  # the second epoch alone
    whole, cut = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "cut.pt"))
    assert all(same(cut[name]["guided"], whole[name]["guided"]) for name in whole)


def test_students_of_a_cohort_share_a_recipe(tasks, inputs):
    other = DistillTask(SPACE, tasks[0].arch, 10, SETTINGS.model_copy(update={"lr": 1e-3}))
    with pytest.raises(ValueError, match="share recipe"):
        Cohort([tasks[0], other], inputs)


def test_the_sample_is_of_different_architectures_and_grows_at_its_end():
    few, more = sample_archs(SPACE, 5, seed=1), sample_archs(SPACE, 9, seed=1)
    assert more[:5] == few
    assert len(set(more)) == 9
    with pytest.raises(ValueError, match="were asked for"):
        sample_archs(SPACE, SPACE.size() + 1, seed=0)


def test_a_line_is_read_back_by_the_ranking(tasks, tmp_path):
    from tvt_ray.evaluation.truth import read_ground_truth

    path = tmp_path / "truth.jsonl"
    path.write_text(
        "".join(json.dumps(ground_truth_line(t, "digits_kd_acc", 90.0 + i)) + "\n" for i, t in enumerate(tasks))
    )
    (truth,) = read_ground_truth(path, SPACE, 10)
    assert [entry.arch for entry in truth.entries] == [task.arch for task in tasks]
    assert truth.accuracy("digits_kd_acc").tolist() == [90, 91, 92]
