"""One student while it trains."""

import dataclasses
import random

import pytest
import torch

from tests.distillation.conftest import SETTINGS, SPACE, only, same, train
from tests.vits.expanded import expanded
from tvt_ray.distillation.cohort import Cohort
from tvt_ray.distillation.learner import StudentLearner
from tvt_ray.training.learner import TrainBatch, WorkerContext
from tvt_ray.vits import build_student
from tvt_ray.vits.weight_source import parse_source

CPU = WorkerContext(torch.device("cpu"))


def changes_of(learner, run):
    before = {key: value.clone() for key, value in learner.guided.state_dict().items()}
    run()
    return {key for key, value in learner.guided.state_dict().items() if not torch.equal(before[key], value)}


def test_learning_rate_warms_up_and_decays_to_the_floor(make):
    cohort, rates = make(epochs=4), []
    learner = only(cohort)
    step = learner.schedule.step_update
    learner.schedule.step_update = lambda n: (step(n), rates.append(learner.optimizer.param_groups[0]["lr"]))
    train(cohort)
    assert rates[0] == pytest.approx(SETTINGS.warmup_lr)
    assert 0.8 * SETTINGS.lr < max(rates) <= SETTINGS.lr  # timm's cosine runs on below the warm-up
    assert rates[-1] < 0.1 * SETTINGS.lr
    assert rates.index(max(rates)) == pytest.approx(len(cohort.batches), abs=1)


def test_weight_decay_is_on_matrices_alone(make):
    learner = only(make())
    names = {id(parameter): name for name, parameter in learner.guided.named_parameters()}
    decayed = {
        names[id(p)] for group in learner.optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    free = set(names.values()) - decayed
    assert {"student.cls_token", "student.pos_embed", "student.norm.weight", "student.head.bias"} <= free
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert "student.blocks.0.attn.qkv.weight" in decayed


def test_a_zero_head_says_nothing_of_any_class_at_first(make, inputs):
    learner = only(make(zero_head=True))
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(learner.student(images), torch.zeros(3, 10))
    assert learner.student.head.weight.requires_grad


def test_gradients_are_added_up_over_batches(make):
    """Of four batches, three make a step and the last one another."""
    cohort, updates = make(grad_accum_steps=3), []
    only(cohort)._update = updates.append
    cohort.run_epoch()
    assert updates == [2, 3]


def test_added_up_gradients_are_those_of_one_large_batch(make, inputs):
    """Stochastic depth is off here, as its draws are by batch."""
    small, large = (only(make(batch_size=size, grad_accum_steps=4)) for size in (25, 100))
    for learner in (small, large):
        for block in learner.student.blocks:
            block.drop_path = 0.0
        learner._update = lambda step: None
    images = torch.randn(100, 3, 32, 32)
    labels = torch.randint(10, (100,))
    taught = inputs.teacher(images)
    for learner, size in ((small, 25), (large, 100)):
        learner.steps = 100 // size
        for step, start in enumerate(range(0, 100, size)):
            part = slice(start, start + size)
            maps = tuple(each[part] for each in taught[1])
            learner.train_step(TrainBatch(step, images[part], labels[part], size, (taught[0][part], maps)))
    for ours, theirs in zip(small.guided.parameters(), large.guided.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_gradients_are_clipped_by_their_norm(make):
    cohort, norms = make(clip_grad=1e-3), []
    learner = only(cohort)
    step = learner.optimizer.step

    def watched(*args, **kwargs):
        gradients = [p.grad.norm() for p in learner.guided.parameters() if p.grad is not None]
        norms.append(torch.stack(gradients).norm().item())
        return step(*args, **kwargs)

    learner.optimizer.step = watched
    cohort.run_epoch()
    assert norms == pytest.approx([1e-3] * 4, rel=1e-3)


def test_an_average_of_the_weights_lags_behind_them_and_is_validated(make):
    cohort = make(ema_decay=0.9)
    metrics = cohort.run_epoch()
    learner = only(cohort)
    assert not same(learner.average.module.state_dict(), learner.student.state_dict())
    (epoch,) = metrics.values()
    assert epoch["ema_val_acc"] == cohort.accuracies({"": learner.average.module}, cohort.inputs.val)[""]


def test_the_average_is_what_is_kept_of_few_images(make):
    """40 of them validate here."""
    cohort = train(make(ema_decay=0.9))
    learner = only(cohort)
    assert learner.selection.rule == "ema"
    assert same(learner.selection.state, learner.average.module.state_dict())
    assert learner.selection.val_acc == learner.history[-1]["ema_val_acc"]


def test_without_an_average_the_last_weights_are_kept_of_few_images(make):
    cohort = train(make())
    learner = only(cohort)
    assert learner.selection.rule == "last"
    assert same(learner.selection.state, learner.student.state_dict())


@pytest.mark.parametrize("amp", ["bfloat16", "auto"])
def test_mixed_precision_trains_weights_that_stay_in_float32(make, amp):
    cohort = make(amp=amp)
    first = next(iter(cohort.run_epoch().values()))
    last = next(iter(cohort.run_epoch().values()))
    assert last["loss"] < first["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in only(cohort).guided.parameters())


def test_what_auto_chose_is_kept_to_by_who_goes_on(make, monkeypatch):
    chosen = iter([torch.bfloat16])
    monkeypatch.setattr("tvt_ray.training.learner.choose_precision", lambda *args: next(chosen))
    begun, resumed = make(amp="auto"), make(amp="auto")
    begun.run_epoch()
    resumed.load_state_dict(begun.state_dict())
    resumed.run_epoch()  # would ask again, and find no answer
    assert only(resumed).precision is torch.bfloat16


def test_channels_last_changes_the_order_in_memory_and_not_what_is_learned(make):
    plain, other = (next(iter(make(channels_last=flag).run_epoch().values())) for flag in (False, True))
    assert other["loss"] == pytest.approx(plain["loss"], rel=1e-3)


def test_weights_and_draws_are_a_learners_own(make):
    """Nothing that is seeded here moves the process's own generators."""
    random.seed(5)
    torch.manual_seed(5)
    cohort = make()
    torch.manual_seed(5)
    cohort.run_epoch()
    drawn = random.random(), torch.rand(1)
    random.seed(5)
    torch.manual_seed(5)
    assert drawn == (random.random(), torch.rand(1))


def test_a_learner_is_told_how_many_steps_an_epoch_has(make, inputs):
    cohort = make()
    assert isinstance(only(cohort), StudentLearner)
    assert only(cohort).steps == len(cohort.batches) == 4


def begun_with(task, label=""):
    """The training, where settings say that there are weights to begin with."""
    return dataclasses.replace(task, settings=task.settings.model_copy(update={"init": "larger"}), label=label)


def test_a_student_begins_with_the_weights_that_are_given_and_learns_from_there(make, inputs):
    drawn = only(make())
    larger, heads = expanded(build_student(SPACE, drawn.task.arch, 10, seed=1))
    source = parse_source("larger", larger, heads, tuple(map(str, range(10))))
    cohort = Cohort([begun_with(drawn.task)], dataclasses.replace(inputs, init=source), CPU)
    learner = only(cohort)
    given = build_student(SPACE, drawn.task.arch, 10, seed=1).state_dict()
    assert same(learner.student.state_dict(), given)
    assert not same(learner.student.state_dict(), drawn.student.state_dict())
    train(cohort)
    assert not same(learner.student.state_dict(), given)


def test_a_training_from_given_weights_goes_on_as_if_it_had_not_stopped(make, inputs):
    task = only(make()).task
    source = parse_source("larger", *expanded(build_student(SPACE, task.arch, 10, seed=1)))
    begun, straight, later = (
        Cohort([begun_with(task)], dataclasses.replace(inputs, init=source), CPU) for _ in range(3)
    )
    begun.run_epoch()
    later.load_state_dict(begun.state_dict())
    assert same(only(train(later)).student.state_dict(), only(train(straight)).student.state_dict())


def test_students_whose_settings_name_no_weights_learn_beside_as_if_there_were_none(make, inputs):
    alone = train(make())
    task = only(alone).task
    source = parse_source("larger", *expanded(build_student(SPACE, task.arch, 10, seed=1)))
    both = Cohort([task, begun_with(task, "begun")], dataclasses.replace(inputs, init=source), CPU)
    train(both)
    assert same(both.learners[task.arch_id].student.state_dict(), only(alone).student.state_dict())
    assert not same(both.learners["begun"].student.state_dict(), only(alone).student.state_dict())
