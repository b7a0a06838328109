"""A learner's own parts: the weights that are kept, and states as bytes."""

from __future__ import annotations

import pickle

import pytest
import torch

from tvt_ray.training.learner import FEW_IMAGES, Selection, from_bytes, resolve_weights, to_bytes


@pytest.mark.parametrize(
    ("num_val", "has_ema", "rule"),
    [(24, True, "ema"), (24, False, "last"), (FEW_IMAGES, True, "best"), (FEW_IMAGES, False, "best")],
)
def test_auto_trusts_an_epochs_accuracy_only_where_many_images_gave_it(num_val, has_ema, rule):
    assert resolve_weights("auto", num_val, has_ema) == rule
    assert resolve_weights("best", num_val, has_ema) == "best"


def offered(rule, *accuracies):
    selection = Selection(rule)
    for epoch, accuracy in enumerate(accuracies, 1):
        selection.offer(epoch, accuracy, {"w": torch.tensor(float(epoch))})
    return selection


def test_of_equally_good_epochs_the_later_one_is_best():
    selection = offered("best", 50.0, 70.0, 60.0, 70.0, 65.0)
    assert (selection.epoch, selection.val_acc, selection.state["w"]) == (4, 70.0, 4)


@pytest.mark.parametrize("rule", ["last", "ema"])
def test_the_last_is_the_last_however_good(rule):
    selection = offered(rule, 50.0, 70.0, 60.0)
    assert (selection.epoch, selection.val_acc, selection.state["w"]) == (3, 60.0, 3)


def test_what_is_kept_does_not_change_with_the_model():
    weight = torch.zeros(2)
    selection = Selection("last")
    selection.offer(1, 10.0, {"w": weight})
    weight += 1
    assert torch.equal(selection.state["w"], torch.zeros(2))


def test_a_choice_goes_on_where_it_was():
    again = Selection("last")
    again.load_state_dict(offered("best", 50.0, 70.0).state_dict())
    again.offer(3, 60.0, {"w": torch.tensor(3.0)})
    assert (again.rule, again.epoch) == ("best", 2)


def test_a_state_comes_back_with_tensors_of_its_own():
    state = {"weights": {"w": torch.arange(3.0)}, "epoch": 4, "history": [{"loss": 0.5}]}
    again = from_bytes(to_bytes(state))
    assert torch.equal(again["weights"]["w"], state["weights"]["w"])
    assert (again["epoch"], again["history"]) == (4, [{"loss": 0.5}])
    again["weights"]["w"] += 1
    assert state["weights"]["w"].tolist() == [0, 1, 2]


def test_counts_of_steps_stay_on_the_cpu_wherever_weights_are():
    """Where a training goes on. On a GPU each step of AdamW would wait for them, twice for each weight."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    elsewhere = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2, device="meta"))])
    elsewhere.load_state_dict(from_bytes(to_bytes(optimizer.state_dict())))
    (state,) = elsewhere.state.values()
    assert (state["step"].device.type, state["exp_avg"].device.type) == ("cpu", "meta")
    assert state["step"] == 1


def test_nothing_but_tensors_and_plain_values_is_unpickled():
    with pytest.raises(pickle.UnpicklingError):
        from_bytes(to_bytes({"object": pytest.approx(1)}))
