"""Promises of every proxy, and TVT's two readings against an independent computation."""

import dataclasses
import itertools
import math
import random
import sys

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.data import ProbeSettings, build_probe_images
from tvt_ray.models import build_student
from tvt_ray.proxies import PROXIES, build_probe
from tvt_ray.proxies.diswot import _teacher_head_gradient
from tvt_ray.proxies.fisher import _channels
from tvt_ray.proxies.gradients import gradients, matrices
from tvt_ray.proxies.positive import positive_copy, response_to_ones
from tvt_ray.proxies.recording import attentions_of, inputs_of, outputs_of
from tvt_ray.proxies.tvt import teacher_aware
from tvt_ray.space import AutoFormerSpace, as_space


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

        def feature_maps(self, images, blocks, fused):
            return {0: 3 * probe.teacher_maps[-1]}  # scale does not matter

    assert teacher_aware(Echo(), probe)["t"] == pytest.approx(0, abs=1e-12)
    assert teacher_aware(student, probe)["t"] < 0


def test_t_does_not_depend_on_how_the_probe_is_cut(space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    whole = teacher_aware(student, probe.with_chunk(len(probe.images)))["t"]
    for chunk in (1, 3):
        assert teacher_aware(student, probe.with_chunk(chunk))["t"] == pytest.approx(whole, rel=1e-5)


def test_s_sums_norms_of_matrices_and_kernels_but_not_of_vectors(space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    state = student.state_dict()
    weights = [value.double().numpy() for key, value in state.items() if key.endswith("weight") and "norm" not in key]
    norms = [np.sqrt((w**2).sum()) for w in weights]
    assert PROXIES["s"](student, probe)["s"] == pytest.approx(sum(norms), rel=1e-5)
    assert PROXIES["log_norm"](student, probe)["log_norm"] == pytest.approx(np.log(norms).sum(), rel=1e-5)


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


def test_r_counts_the_ranks_of_the_matrices_as_drawn(space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    state = student.state_dict()
    blocks = [
        v
        for key, v in state.items()
        if key.endswith("weight") and ("attention" in key or ".fc1" in key or ".fc2" in key)
    ]
    assert PROXIES["r"](student, probe)["r"] == sum(int(torch.linalg.matrix_rank(weight)) ** 2 for weight in blocks)


def test_rescaling_between_blocks_does_not_change_synflow(space, probe):
    """On small students the flow does not overflow, and the plain computation in double precision is the reference."""
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    clone = positive_copy(student, with_norms=False)
    weights = matrices(clone)
    found = gradients(response_to_ones(clone, probe.images), weights)
    plain = sum((weight * gradient).abs().sum().item() for weight, gradient in zip(weights, found, strict=True))
    assert PROXIES["synflow"](student, probe)["synflow"] == pytest.approx(math.log(plain), rel=0.02)


@pytest.mark.slow
def test_deep_students_do_not_overflow(probe):
    """SynFlow multiplies up from block to block: beyond any float at this depth, but not as a logarithm."""
    space = as_space(AutoFormerSpace(image_size=32, patch_size=8, embed_dim=(128,), depth=(160,), num_heads=(2,)))
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    flow = PROXIES["synflow"](student, probe)["synflow"]
    assert math.isfinite(flow)
    assert flow > math.log(sys.float_info.max)


def test_attention_probabilities_are_what_attention_uses(probe):
    for relative in (False, True):
        space = as_space(SMALL_SPACES["autoformer"].model_copy(update={"relative_position": relative, "head_dim": 8}))
        student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
        attention = attentions_of(student)[0]
        with torch.no_grad(), inputs_of([attention]) as tokens, outputs_of([attention]) as mixed:
            student(probe.images)
            weights = attention.probabilities(tokens[0])
            values = attention.qkv(tokens[0]).unflatten(-1, (3, attention.num_heads, -1))[:, :, 2].transpose(1, 2)
            expected = weights @ values
            if relative:
                expected = expected + torch.einsum("bnts,tsd->bntd", weights, attention.relative_values())
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
        assert torch.allclose(attention.proj(expected.transpose(1, 2).flatten(2)), mixed[0], atol=1e-5)


def test_fisher_sums_over_positions_before_it_squares():
    generator = torch.Generator().manual_seed(0)
    maps, tokens = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 7, 3, generator=generator)
    by_hand = sum((0.5 * (maps[:, c] * 2).sum((1, 2)) ** 2).mean().item() for c in range(3))
    assert _channels(maps, torch.full_like(maps, 2)) == pytest.approx(by_hand, rel=1e-5)
    by_hand = sum((0.5 * tokens[:, :, c].sum(1) ** 2).mean().item() for c in range(3))
    assert _channels(tokens, torch.ones_like(tokens)) == pytest.approx(by_hand, rel=1e-5)
    by_hand = sum((0.5 * tokens[:, 0, c] ** 2).mean().item() for c in range(3))
    assert _channels(tokens[:, 0], torch.ones(2, 3)) == pytest.approx(by_hand, rel=1e-5)


def test_diswot_differentiates_the_teachers_classifier_without_running_it(probe):
    """The teacher's gradient, computed from its logits, is autograd's for a Linear on its pooled last stage."""
    pooled = probe.teacher_maps[-1].mean((2, 3))
    weight = torch.zeros(probe.teacher_logits.shape[1], pooled.shape[1], requires_grad=True)
    logits = pooled @ weight.mT + probe.teacher_logits
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, probe.labels), weight)
    assert torch.allclose(_teacher_head_gradient(probe), expected, atol=1e-6)


def test_zico_needs_images_for_its_batches(probe):
    space = as_space(SMALL_SPACES["autoformer"])
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    few = dataclasses.replace(probe, images=probe.images[:3], labels=probe.labels[:3])
    with pytest.raises(ValueError, match="at least 4"):
        PROXIES["zico"](student, few)
