import random

import pytest
import torch
import torch.nn.functional as F

from tvt_ray.distill.losses import (
    GuidedStudent,
    LossSettings,
    distillation_loss,
    guidance,
    guided_blocks,
    logit_loss,
)
from tvt_ray.models import build_student


def test_blocks_are_the_published_ones_at_depth_12():
    assert guided_blocks(12, LossSettings()) == (0, 6, 11)
    assert guided_blocks(14, LossSettings()) == (0, 7, 13)
    assert guided_blocks(13, LossSettings(student_blocks=(0, 6, 11))) == (0, 6, 11)
    with pytest.raises(ValueError, match="blocks 0 to 3"):
        guided_blocks(4, LossSettings(student_blocks=(0, 6, 11)))


def test_guidance_compares_at_the_larger_size_per_axis():
    ours, theirs = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 8, 2)
    resized = [F.interpolate(x, (8, 8), mode="bilinear", align_corners=False) for x in (ours, theirs)]
    assert guidance(ours, theirs).item() == pytest.approx(((resized[0] - resized[1]) ** 2).mean().item(), rel=1e-5)
    assert guidance(theirs, theirs).item() == 0


def test_logit_loss_is_the_softened_divergence():
    ours, theirs = torch.randn(5, 4), torch.randn(5, 4)
    p, q = (theirs / 3).softmax(1), (ours / 3).softmax(1)
    assert logit_loss(ours, theirs, 3).item() == pytest.approx(9 * (p * (p / q).log()).sum(1).mean().item(), rel=1e-4)
    assert logit_loss(ours, ours, 3).item() == pytest.approx(0, abs=1e-6)


def outputs(space, settings):
    student = build_student(space, space.sample(random.Random(0)), 6, seed=0)
    guided = GuidedStudent(student, (16, 32, 64), settings)
    images = torch.randn(3, 3, 32, 32)
    taught = (torch.randn(3, 6), tuple(torch.randn(3, c, s, s) for c, s in ((16, 32), (32, 16), (64, 8))))
    return guided, guided(images), taught


def test_every_term_that_is_on_is_in_the_loss(space):
    """The published code drops the logit term when both are on."""
    labels = torch.tensor([0, 1, 2])
    settings = LossSettings(feature_weight=2.5, logit_weight=0.7)
    _, ours, taught = outputs(space, settings)
    terms = distillation_loss(ours, taught, labels, settings)
    wanted = terms["cross_entropy"] + 2.5 * terms["guidance"] + 0.7 * terms["kl"]
    assert torch.allclose(terms["loss"], wanted)
    pairs = zip(ours[1], taught[1], strict=True)
    assert torch.allclose(terms["guidance"], sum(guidance(a, b) for a, b in pairs))
    for off, name in (({"feature_weight": 0}, "guidance"), ({"logit_weight": 0}, "kl")):
        assert name not in distillation_loss(ours, taught, labels, settings.model_copy(update=off))


def test_projections_learn_but_are_not_part_of_the_student(space):
    guided, ours, taught = outputs(space, LossSettings())
    distillation_loss(ours, taught, torch.tensor([0, 1, 2]), LossSettings())["loss"].backward()
    assert len(guided.projections) == 3
    assert all(p.weight.grad.abs().sum() > 0 for p in guided.projections)
    assert not any("projection" in key for key in guided.student.state_dict())
    assert [p.out_channels for p in guided.projections] == [16, 32, 64]


def test_without_guidance_there_are_no_projections(space):
    guided, (_, projected), _ = outputs(space, LossSettings(feature_weight=0))
    assert projected == ()
    assert len(guided.projections) == 0
