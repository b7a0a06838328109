"""How CPUs are divided between loading and computing, and which precision is chosen."""

from __future__ import annotations

import time

import pytest
import torch

from tvt_ray.training.pace import (
    Division,
    Pace,
    autocast,
    candidates,
    choose_precision,
    divide,
    exact_float32,
    scaling_of,
)


@pytest.mark.parametrize(
    ("cpus", "pace", "division"),
    [
        (1, Pace(1, 1), Division(0, 1)),
        (2, Pace(0.01, 1), Division(0, 2)),  # loading is little: both compute
        (2, Pace(1, 1), Division(1, 1)),
        (2, Pace(5, 1), Division(1, 1)),
        (8, Pace(1, 1), Division(3, 5)),
        (8, Pace(10, 1), Division(7, 1)),
        (2, Pace(0.1, 1, scaling=0.0), Division(1, 1)),  # a second thread would compute nothing
        (8, Pace(1, 1, on_gpu=True), Division(1, 7)),
        (8, Pace(3, 1, on_gpu=True), Division(3, 5)),
    ],
)
def test_a_step_takes_as_little_as_it_can(cpus, pace, division):
    assert divide(cpus, pace) == division


def test_scaling_is_of_what_was_measured():
    assert scaling_of(1.0, 0.5, 2) == pytest.approx(1)
    assert scaling_of(1.0, 1.0, 2) == 0
    assert scaling_of(1.0, 1.4, 2) == 0  # more threads were slower
    assert scaling_of(8.0, 1.0, 4) == 1  # more than can be
    assert scaling_of(1.0, 1.0, 1) == 0


CPU = torch.device("cpu")


@pytest.mark.parametrize(("amp", "dtype"), [("off", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_what_is_named_is_taken_without_a_look(amp, dtype):
    assert choose_precision(amp, CPU, lambda: pytest.fail("was timed")) == dtype


@pytest.mark.parametrize(("slow", "dtype"), [(torch.float32, torch.bfloat16), (torch.bfloat16, None)])
def test_auto_takes_what_is_faster(slow, dtype, monkeypatch):
    monkeypatch.setattr("tvt_ray.training.pace.HAS_BF16", True)

    def step():
        a = torch.ones(2, 2)
        if (a @ a).dtype == slow:
            time.sleep(0.005)

    assert choose_precision("auto", CPU, step) == dtype


def test_a_tie_stays_in_float32():
    assert choose_precision("auto", CPU, lambda: time.sleep(0.003)) is None


def test_a_processor_without_the_instructions_is_not_asked_for_them(monkeypatch):
    monkeypatch.setattr("tvt_ray.training.pace.HAS_BF16", False)
    assert candidates(CPU) == [None]
    seen = []
    assert choose_precision("auto", CPU, lambda: seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)) is None
    assert set(seen) == {torch.float32}


def test_within_the_block_products_are_in_the_precision_asked_for():
    a = torch.ones(2, 2)
    for dtype in candidates(CPU):
        with autocast(dtype, CPU):
            assert (a @ a).dtype == (dtype or torch.float32)


def test_of_two_threads_that_want_exact_float32_the_last_puts_back_what_was():
    conv = torch.backends.cudnn.conv
    before, conv.fp32_precision = conv.fp32_precision, "tf32"
    try:
        first, second = exact_float32(), exact_float32()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert conv.fp32_precision == "ieee"
        second.__exit__(None, None, None)
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision = before
