"""Promises of every proxy; a new row in PROXIES is tested here without another line."""

import dataclasses
import itertools
import math
import random
from typing import get_args

import numpy as np
import pytest
import torch

from tvt_ray.proxies import PROXIES, Needs, Probe, need_teacher
from tvt_ray.vits import build_student


def named(*needs):
    return pytest.mark.parametrize("name", sorted(name for name in PROXIES if PROXIES[name].needs in needs))


@pytest.fixture(params=sorted(PROXIES))
def name(request):
    return request.param


@pytest.fixture
def student(space):
    return build_student(space, space.sample(random.Random(0)), 10, seed=0)


def other_images(probe):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(probe.images.shape, generator=generator)
    return dataclasses.replace(probe, images=images, labels=probe.labels.flip(0))


def test_a_reading_is_a_finite_number(name, student, probe):
    value = PROXIES[name].read(student, probe)
    assert isinstance(value, float)
    assert math.isfinite(value)


def test_readings_repeat(name, space, probe):
    arch = space.sample(random.Random(0))
    first, again = (PROXIES[name].read(build_student(space, arch, 10, seed=0), probe) for _ in range(2))
    assert first == again


def test_model_is_left_untouched(name, student, probe):
    before = {key: value.clone() for key, value in student.state_dict().items()}
    PROXIES[name].read(student, probe)
    assert not student.training
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def test_the_probe_is_left_untouched(name, student, probe):
    tensors = [probe.images, probe.labels, probe.teacher_logits, *probe.teacher_maps]
    before = [tensor.clone() for tensor in tensors]
    PROXIES[name].read(student, probe)
    assert all(torch.equal(old, new) for old, new in zip(before, tensors, strict=True))
    assert not probe.images.requires_grad


def test_readings_differ_over_a_space(name, space, probe):
    archs = itertools.islice(space.enumerate(), 0, None, max(1, space.size() // 4))
    values = [PROXIES[name].read(build_student(space, arch, 10, seed=0), probe) for arch in archs]
    assert np.std(values) > 0


def test_every_need_is_one_of_three(name):
    assert PROXIES[name].needs in get_args(Needs)


@named("weights")
def test_what_needs_weights_reads_the_same_whatever_the_images(name, student, probe):
    bare = Probe(other_images(probe).images, other_images(probe).labels)
    assert PROXIES[name].read(student, bare) == PROXIES[name].read(student, probe)


@named("weights", "images")
def test_what_needs_no_teacher_reads_the_same_without_one(name, student, probe):
    alone = Probe(probe.images, probe.labels)
    assert PROXIES[name].read(student, alone) == PROXIES[name].read(student, probe)


@named("images", "teacher")
def test_what_needs_images_reads_others_differently(name, student, probe):
    assert PROXIES[name].read(student, other_images(probe)) != PROXIES[name].read(student, probe)


@named("teacher")
def test_what_needs_a_teacher_reads_another_one_differently(name, student, probe):
    maps = tuple(features.roll(1, 0) for features in probe.teacher_maps)
    other = dataclasses.replace(probe, teacher_maps=maps)
    assert PROXIES[name].read(student, other) != PROXIES[name].read(student, probe)


def test_a_teacher_is_needed_if_any_reading_compares_with_one():
    alone = [name for name in PROXIES if PROXIES[name].needs != "teacher"]
    assert not need_teacher(alone)
    assert not need_teacher([])
    assert need_teacher([*alone, "attention_similarity"])
