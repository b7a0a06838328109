"""What is read of a student's weights: matrices and kernels, not vectors."""

import random

import numpy as np
import pytest
import torch

from tvt_ray.proxies import PROXIES
from tvt_ray.proxies.passes import gradients, loss_gradients, matrices, norms
from tvt_ray.vits import build_student


@pytest.fixture
def student(space):
    return build_student(space, space.sample(random.Random(0)), 10, seed=0)


def test_norms_are_of_matrices_and_kernels_but_not_of_vectors(student, probe):
    state = student.state_dict()
    weights = [value.double().numpy() for key, value in state.items() if key.endswith("weight") and "norm" not in key]
    expected = [np.sqrt((w**2).sum()) for w in weights]
    assert PROXIES["l2_norm"].read(student, probe) == pytest.approx(sum(expected), rel=1e-5)
    assert PROXIES["log_norm"].read(student, probe) == pytest.approx(np.log(expected).sum(), rel=1e-5)
    assert sorted(norms(student)) == pytest.approx(sorted(expected), rel=1e-5)


def test_the_losses_gradients_are_autograds(student, probe):
    found = loss_gradients(student, probe)
    torch.nn.functional.cross_entropy(student(probe.images), probe.labels).backward()
    for weight, gradient in zip(matrices(student), found, strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-5)


def test_a_gradient_is_zero_where_nothing_depends_on_it():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = gradients((2 * used).sum(), [used, unused])
    assert [gradient.tolist() for gradient in found] == [[2, 2], [0, 0, 0]]
    assert used.grad is None
