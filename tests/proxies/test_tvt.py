"""TVT's two readings against an independent computation."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.proxies.tvt import attention_map, attention_similarity, distances, l2_norm
from tvt_ray.vits import build_student


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


def test_attention_similarity_is_the_published_formula(space, probe):
    """In numpy and double precision; both small spaces have maps smaller than the teacher's, one of odd size."""
    student = build_student(space, space.sample(random.Random(1)), 10, seed=0)
    last = student.num_blocks - 1
    ours = student.feature_maps(probe.images, (last,))[last].detach().double().numpy()
    theirs = probe.teacher_maps[-1].double().numpy()
    size = max(ours.shape[-1], theirs.shape[-1])
    difference = energy(upsample(theirs, size)) - energy(upsample(ours, size))
    assert attention_similarity(student, probe) == pytest.approx(-(difference**2).mean(), rel=1e-4)
    assert distances(student, probe).numpy() == pytest.approx((difference**2).mean(1), rel=1e-4)


def test_attention_similarity_is_zero_for_equal_attention_and_negative_otherwise(probe):
    space = SMALL_SPACES["autoformer"]
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)

    class Echo(torch.nn.Module):
        num_blocks = 1

        def feature_maps(self, images, blocks, fused):
            return {0: 3 * probe.teacher_maps[-1]}  # scale does not matter

    assert attention_similarity(Echo(), probe) == pytest.approx(0, abs=1e-12)
    assert attention_similarity(student, probe) < 0


def test_attention_similarity_does_not_depend_on_how_the_probe_is_cut(space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    whole = attention_similarity(student, dataclasses.replace(probe, chunk=len(probe.images)))
    for chunk in (1, 3):
        assert attention_similarity(student, dataclasses.replace(probe, chunk=chunk)) == pytest.approx(whole, rel=1e-5)


def test_every_image_has_a_distance_whose_mean_is_the_reading(space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    found = distances(student, dataclasses.replace(probe, chunk=3))
    assert found.shape == (len(probe.images),)
    assert (found > 0).all()
    assert attention_similarity(student, probe) == pytest.approx(-found.mean().item(), rel=1e-5)


def test_an_attention_map_is_of_length_one():
    maps = attention_map(torch.randn(3, 5, 4, 6), (8, 6))
    assert maps.shape == (3, 8 * 6)
    assert torch.allclose(maps.norm(dim=1), torch.ones(3))


def test_l2_norm_needs_no_probe(space):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    weights = [m.weight.double() for m in student.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert l2_norm(student, None) == pytest.approx(sum(weight.norm().item() for weight in weights), rel=1e-5)
