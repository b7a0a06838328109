"""Mixed precision."""

import time

import pytest
import torch

from tvt_ray.training.precision import autocast, candidates, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("amp", "dtype"), [("off", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_what_is_named_is_taken_without_a_look(amp, dtype):
    assert choose_precision(amp, CPU, lambda: pytest.fail("was timed")) == dtype


@pytest.mark.parametrize(("slow", "dtype"), [(torch.float32, torch.bfloat16), (torch.bfloat16, None)])
def test_auto_takes_what_is_faster(slow, dtype, monkeypatch):
    monkeypatch.setattr("tvt_ray.training.precision.HAS_BF16", True)

    def step():
        a = torch.ones(2, 2)
        if (a @ a).dtype == slow:
            time.sleep(0.005)

    assert choose_precision("auto", CPU, step) == dtype


def test_a_tie_stays_in_float32():
    assert choose_precision("auto", CPU, lambda: time.sleep(0.003)) is None


def test_a_processor_without_the_instructions_is_not_asked_for_them(monkeypatch):
    monkeypatch.setattr("tvt_ray.training.precision.HAS_BF16", False)
    assert candidates(CPU) == [None]
    seen = []
    assert choose_precision("auto", CPU, lambda: seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)) is None
    assert set(seen) == {torch.float32}


def test_within_the_block_products_are_in_the_precision_asked_for():
    a = torch.ones(2, 2)
    for dtype in candidates(CPU):
        with autocast(dtype, CPU):
            assert (a @ a).dtype == (dtype or torch.float32)
