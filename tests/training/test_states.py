"""States as bytes."""

import pickle

import pytest
import torch

from tvt_ray.training.states import from_bytes, to_bytes


def test_a_state_comes_back_with_tensors_of_its_own():
    state = {"weights": {"w": torch.arange(3.0)}, "epoch": 4, "history": [{"loss": 0.5}]}
    again = from_bytes(to_bytes(state))
    assert torch.equal(again["weights"]["w"], state["weights"]["w"])
    assert (again["epoch"], again["history"]) == (4, [{"loss": 0.5}])
    again["weights"]["w"] += 1
    assert state["weights"]["w"].tolist() == [0, 1, 2]


def test_nothing_but_tensors_and_plain_values_is_unpickled():
    with pytest.raises(pickle.UnpicklingError):
        from_bytes(to_bytes({"object": pytest.approx(1)}))
