"""Students that train side by side on the same batches."""

import numpy as np
import pytest
import torch

from benchmarks.ground_truth import sample_archs
from tests.distillation.conftest import SETTINGS, SPACE, only, same, train
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.cohort import Cohort, cohorts_of
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.losses import LossSettings
from tvt_ray.training.learner import WorkerContext

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_training_lowers_every_term(make):
    plain = AugmentSettings(scale=(0.6, 1.0), hflip=0, auto_augment=None, random_erasing=0)
    history = only(train(make(epochs=6, lr=4e-3, augment=plain))).history
    for term in ("loss", "cross_entropy", "guidance"):
        assert history[-1][term] < history[0][term]


def test_an_epoch_says_how_it_went(make):
    cohort = make()
    (metrics,) = cohort.run_epoch().values()
    terms = {"loss", "cross_entropy", "guidance"}
    others = {"epoch", "val_acc", "kept_val_acc", "lr", "images_per_s", "data_wait_share", "seconds"}
    assert metrics.keys() == terms | others
    assert metrics["epoch"] == cohort.epoch == 1
    assert metrics["loss"] == pytest.approx(metrics["cross_entropy"] + 2.5 * metrics["guidance"], rel=1e-4)
    assert metrics["val_acc"] == cohort.accuracies({"": only(cohort).student}, cohort.inputs.val)[""]
    assert 0 < metrics["data_wait_share"] < 1
    assert only(cohort).history == [metrics]


def test_every_image_is_used_in_an_epoch_the_last_partial_batch_too(make):
    batches = []
    make(count=2).run_epoch(batches.append)
    assert batches == [64, 64, 64, 8]  # of 100 images, by two students


def test_terms_that_are_off_are_not_reported(make):
    (metrics,) = make(loss=LossSettings(weights={"logits": 1})).run_epoch().values()
    assert "logits" in metrics
    assert not metrics.keys() & {"cross_entropy", "guidance"}


def test_a_dataset_smaller_than_a_batch_is_trained_on(make):
    cohort = make(batch_size=500)
    assert len(cohort.batches) == 1
    assert next(iter(cohort.run_epoch().values()))["loss"] > 0


def test_the_teacher_stays_as_it_is(make):
    cohort = make()
    before = {key: value.clone() for key, value in cohort.teacher.state_dict().items()}
    cohort.run_epoch()
    assert not any(module.training for module in cohort.teacher.modules())
    assert same(cohort.teacher.state_dict(), before)


def test_what_a_student_learns_does_not_depend_on_who_learns_beside_it(make, inputs):
    """Stochastic depth and augmentation draw from generators that the others do not move."""
    together = train(make(count=3))
    for arch_id, learner in together.learners.items():
        task = learner.task
        alone = train(Cohort([task], inputs, WorkerContext(CPU)))
        assert same(learner.guided.state_dict(), alone.learners[arch_id].guided.state_dict())


def test_who_follows_the_teacher_and_who_does_not_learn_side_by_side(inputs):
    """One architecture twice, by two losses: each as if it were alone; the teacher is asked where one follows."""
    (arch,) = sample_archs(SPACE, 1, seed=0)
    by_labels = SETTINGS.model_copy(update={"loss": SETTINGS.loss.alone()})
    tasks = [DistillTask(SPACE, arch, 10, SETTINGS), DistillTask(SPACE, arch, 10, by_labels, label="alone")]
    together = train(Cohort(tasks, inputs, WorkerContext(CPU)))
    assert list(together.learners) == [tasks[0].arch_id, "alone"]
    assert "guidance" not in together.learners["alone"].history[0]
    for task in reversed(tasks):
        single = train(Cohort([task], inputs, WorkerContext(CPU)))
        ours = together.learners[task.name].guided.state_dict()
        assert same(ours, single.learners[task.name].guided.state_dict())
    assert single.taught
    assert not Cohort(tasks[1:], inputs, WorkerContext(CPU)).taught


def test_students_of_a_cohort_have_names_of_their_own(inputs):
    (arch,) = sample_archs(SPACE, 1, seed=0)
    with pytest.raises(ValueError, match="names of their own"):
        Cohort([DistillTask(SPACE, arch, 10, SETTINGS)] * 2, inputs, WorkerContext(CPU))


def test_what_a_student_learns_does_not_depend_on_who_loads_images(make):
    """In this process, in one that stays from epoch to epoch, or in two."""
    cohorts = [make() for _ in range(3)]
    for num_workers, cohort in enumerate(cohorts):
        cohort.load_with(num_workers)
    results = [only(train(cohort)).guided.state_dict() for cohort in cohorts]
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_resuming_repeats_an_uninterrupted_run_exactly(make, tmp_path):
    """Projections, optimiser, schedule, average and choice come along; the state loads without unpickling objects."""
    options = {"ema_decay": 0.9, "mixup": 0.2, "smoothing": 0.1}
    whole, begun, resumed = (make(count=2, **options) for _ in range(3))
    train(whole)
    begun.run_epoch()
    torch.save(begun.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(resumed)
    for arch_id, learner in whole.learners.items():
        ours = resumed.learners[arch_id]
        assert same(ours.guided.state_dict(), learner.guided.state_dict())
        assert same(ours.selection.state, learner.selection.state)
        assert [m["loss"] for m in ours.history] == [m["loss"] for m in learner.history]


def test_a_student_that_is_behind_catches_up_as_if_it_had_not_been(make):
    whole, cut = train(make(count=2)), make(count=2)
    states = make(count=2)
    states.run_epoch()
    first, second = cut.learners
    cut.load_state_dict({first: states.state_dict()[first]})
    metrics = cut.run_epoch()
    assert metrics.keys() == {second}
    train(cut)
    for arch_id, learner in whole.learners.items():
        assert same(cut.learners[arch_id].guided.state_dict(), learner.guided.state_dict())


def test_the_weights_that_are_kept_are_the_ones_tested(make):
    cohort = make(weights="best")
    cohort.run_epoch()
    learner = only(cohort)
    best = {key: value.clone() for key, value in learner.student.state_dict().items()}
    learner.selection.val_acc = 101.0  # no later epoch is better
    cohort.run_epoch()
    cohort.test()
    assert same(learner.student.state_dict(), best)


def test_students_of_a_cohort_share_a_recipe(make, inputs):
    first, second = sample_archs(SPACE, 2, seed=0)
    tasks = [
        DistillTask(SPACE, first, 10, SETTINGS),
        DistillTask(SPACE, second, 10, SETTINGS.model_copy(update={"smoothing": 0.2})),
    ]
    with pytest.raises(ValueError, match="share recipe"):
        Cohort(tasks, inputs, WorkerContext(CPU))


def test_rates_and_starts_may_differ_and_change_nothing_for_others(make, inputs):
    (first,) = sample_archs(SPACE, 1, seed=0)
    other = SETTINGS.with_(lr=5 * SETTINGS.lr, weight_decay=0.3, start="mimetic")
    tasks = [DistillTask(SPACE, first, 10, SETTINGS), DistillTask(SPACE, first, 10, other, label="other")]
    together = train(Cohort(tasks, inputs, WorkerContext(CPU)))
    for task in tasks:
        alone = only(train(Cohort([task], inputs, WorkerContext(CPU))))
        assert same(together.learners[task.name].student.state_dict(), alone.student.state_dict())


def test_balanced_sampling_shows_a_rare_class_as_often_as_a_common_one(make, inputs):
    shown = {}
    for sampling in ("uniform", "balanced"):
        order = make(sampling=sampling).batches.order
        shown[sampling] = sum(np.bincount(inputs.train.labels[order(epoch)], minlength=10) for epoch in range(40))
    assert np.array_equal(shown["uniform"], 40 * np.bincount(inputs.train.labels, minlength=10))
    assert shown["balanced"].sum() == shown["uniform"].sum()
    assert np.ptp(shown["balanced"]) < 0.4 * np.ptp(shown["uniform"])


def test_measuring_changes_nothing_that_is_learned(make):
    measured, other = make(), make()
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    pace = measured.measure(2)
    assert pace.load_s > 0
    assert pace.step_s > 0
    assert not pace.on_gpu
    assert 0 <= pace.scaling <= 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(1), torch.manual_seed(3) and torch.rand(1))
    for cohort in (measured, other):
        cohort.run_epoch()
    assert same(only(measured).guided.state_dict(), only(other).guided.state_dict())


@pytest.mark.parametrize(
    ("seeds", "count", "largest", "sizes"),
    [
        (1, 2, None, [3, 2]),
        (2, 2, None, [5, 5]),
        (3, 2, None, [3, 2] * 3),
        (1, 9, None, [1] * 5),
        (1, 2, 2, [2, 2, 1]),
        (1, 1, 4, [3, 2]),
    ],
)
def test_cohorts_are_of_one_seed_and_fill_the_jobs(seeds, count, largest, sizes):
    """Five students with so many seeds, for so many jobs at a time."""
    tasks = {
        f"{number}.{seed}": DistillTask(SPACE, arch, 10, SETTINGS.model_copy(update={"seed": seed}))
        for number, arch in enumerate(sample_archs(SPACE, 5, seed=0))
        for seed in range(seeds)
    }
    cohorts = cohorts_of(tasks, count, largest)
    assert list(map(len, cohorts)) == sizes
    assert all(len({task.settings.seed for task in cohort.values()}) == 1 for cohort in cohorts)
    assert {name: task for cohort in cohorts for name, task in cohort.items()} == tasks


def test_a_few_second_trainings_do_not_make_all_cohorts_large():
    """As refine has it: ten students, and two of them by another seed too, on four workers."""
    archs = sample_archs(SPACE, 10, seed=0)
    tasks = {
        f"{number}.{seed}": DistillTask(SPACE, arch, 10, SETTINGS.model_copy(update={"seed": seed}))
        for seed, count in ((0, 10), (1, 2))
        for number, arch in enumerate(archs[:count])
    }
    assert list(map(len, cohorts_of(tasks, 4, 8))) == [4, 3, 3, 2]
