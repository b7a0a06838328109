"""Promises of every proxy, and TVT's two readings against an independent computation."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.data import ProbeSettings, build_probe_images
from tvt_ray.models import build_student
from tvt_ray.proxies import PROXIES, build_probe
from tvt_ray.proxies.tvt import teacher_aware
from tvt_ray.space import as_space


@pytest.fixture(params=sorted(PROXIES))
def name(request):
    return request.param


def test_readings_are_finite_and_named(name, space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    readings = PROXIES[name](student, probe)
    assert name in readings
    assert all(math.isfinite(value) for value in readings.values())


def test_readings_repeat(name, space, probe):
    arch = space.sample(random.Random(0))
    first, again = (PROXIES[name](build_student(space, arch, 10, seed=0), probe) for _ in range(2))
    assert first == again


def test_model_is_left_untouched(name, space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    PROXIES[name](student, probe)
    assert not student.training
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def test_readings_differ_over_a_space(name, space, probe):
    archs = itertools.islice(space.enumerate(), 0, None, max(1, space.size() // 8))
    values = [PROXIES[name](build_student(space, arch, 10, seed=0), probe)[name] for arch in archs]
    assert np.std(values) > 0


def upsample(features, size):
    """Bilinear, align_corners=False, by the definition: half-pixel centres, clamped at the border."""
    for axis in (2, 3):
        length = features.shape[axis]
        centres = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(centres.astype(int), length - 2) if length > 1 else np.zeros(size, int)
        share = (centres - low).reshape([-1 if i == axis else 1 for i in range(4)])
        high = np.minimum(low + 1, length - 1)
        features = np.take(features, low, axis) * (1 - share) + np.take(features, high, axis) * share
    return features


def energy(features):
    flat = (features**2).mean(1).reshape(len(features), -1)
    return flat / np.sqrt((flat**2).sum(1, keepdims=True))


def test_t_is_the_published_formula(space, probe):
    """In numpy and double precision; both small spaces have maps smaller than the teacher's, one of odd size."""
    student = build_student(space, space.sample(random.Random(1)), 10, seed=0)
    last = student.num_blocks - 1
    ours = student.feature_maps(probe.images, (last,))[last].detach().double().numpy()
    theirs = probe.teacher_maps[-1].double().numpy()
    size = max(ours.shape[-1], theirs.shape[-1])
    difference = energy(upsample(theirs, size)) - energy(upsample(ours, size))
    assert teacher_aware(student, probe)["t"] == pytest.approx(-(difference**2).mean(), rel=1e-4)


def test_t_is_zero_for_equal_attention_and_negative_otherwise(probe):
    space = as_space(SMALL_SPACES["autoformer"])
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)

    class Echo(torch.nn.Module):
        num_blocks = 1

        def feature_maps(self, images, blocks):
            return {0: 3 * probe.teacher_maps[-1]}  # scale does not matter

    assert teacher_aware(Echo(), probe)["t"] == pytest.approx(0, abs=1e-12)
    assert teacher_aware(student, probe)["t"] < 0


def test_s_sums_norms_of_matrices_and_kernels_but_not_of_vectors(space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    state = student.state_dict()
    weights = [value.double().numpy() for key, value in state.items() if key.endswith("weight") and "norm" not in key]
    assert PROXIES["s"](student, probe)["s"] == pytest.approx(sum(np.sqrt((w**2).sum()) for w in weights), rel=1e-5)


def test_the_teacher_is_run_in_evaluation_mode(digits, teacher):
    images = build_probe_images(digits.train, ProbeSettings(num_images=6), 32, teacher.image_size)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher.train()
    probe = build_probe(images, teacher)
    assert not teacher.training
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    with torch.no_grad():
        alone = teacher(images.teacher[:1])[1][-1]
    assert torch.allclose(probe.teacher_maps[-1][:1], alone, atol=1e-5)
