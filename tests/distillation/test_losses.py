import random

import pytest
import torch
import torch.nn.functional as F

from tvt_ray.distillation.losses import (
    LOSSES,
    GuidedStudent,
    LossSettings,
    distance,
    distillation_loss,
    guided_blocks,
)
from tvt_ray.training.learner import Outputs
from tvt_ray.vits import build_student

LABELS = torch.tensor([0, 1, 2])


def test_blocks_are_the_published_ones_at_depth_12():
    assert guided_blocks(12, LossSettings()) == (0, 6, 11)
    assert guided_blocks(14, LossSettings()) == (0, 7, 13)
    assert guided_blocks(13, LossSettings(student_blocks=(0, 6, 11))) == (0, 6, 11)
    with pytest.raises(ValueError, match="blocks 0 to 3"):
        guided_blocks(4, LossSettings(student_blocks=(0, 6, 11)))


def test_maps_are_compared_at_the_larger_size_per_axis():
    ours, theirs = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 8, 2)
    resized = [F.interpolate(x, (8, 8), mode="bilinear", align_corners=False) for x in (ours, theirs)]
    assert distance(ours, theirs).item() == pytest.approx(((resized[0] - resized[1]) ** 2).mean().item(), rel=1e-5)
    assert distance(theirs, theirs).item() == 0


def test_logit_loss_is_the_softened_divergence():
    ours, theirs, settings = torch.randn(5, 4), torch.randn(5, 4), LossSettings(temperature=3)
    p, q = (theirs / 3).softmax(1), (ours / 3).softmax(1)
    found, none = (LOSSES["logits"]((ours, ()), (other, ()), LABELS, settings).item() for other in (theirs, ours))
    assert found == pytest.approx(9 * (p * (p / q).log()).sum(1).mean().item(), rel=1e-4)
    assert none == pytest.approx(0, abs=1e-6)


def test_features_are_compared_by_their_direction_alone():
    ours, theirs = torch.randn(5, 8), torch.randn(5, 8)
    same, other = (
        LOSSES["features"](Outputs(LABELS, (), ours), Outputs(LABELS, (), each), LABELS, LossSettings()).item()
        for each in (3 * ours, theirs)
    )
    assert same == pytest.approx(0, abs=1e-6)
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(ours, theirs, strict=True)]
    assert other == pytest.approx(1 - sum(cosines) / 5, rel=1e-5)


def outputs(space, settings):
    student = build_student(space, space.sample(random.Random(0)), 6, seed=0)
    guided = GuidedStudent(student, (16, 32, 64), settings, teacher_features=64)
    images = torch.randn(3, 3, 32, 32)
    maps = tuple(torch.randn(3, c, s, s) for c, s in ((16, 32), (32, 16), (64, 8)))
    taught = Outputs(torch.randn(3, 6), maps, torch.randn(3, 64))
    return guided, guided(images), taught


def test_every_term_that_is_on_is_in_the_loss(space):
    """The published code drops the logit term when both are on."""
    settings = LossSettings(weights={"cross_entropy": 1, "guidance": 2.5, "logits": 0.7})
    _, ours, taught = outputs(space, settings)
    terms = distillation_loss(ours, taught, LABELS, settings)
    wanted = terms["cross_entropy"] + 2.5 * terms["guidance"] + 0.7 * terms["logits"]
    assert torch.allclose(terms["loss"], wanted)
    pairs = zip(ours[1], taught[1], strict=True)
    assert torch.allclose(terms["guidance"], sum(distance(a, b) for a, b in pairs))
    assert torch.allclose(terms["logits"], LOSSES["logits"](ours, taught, LABELS, settings))
    assert torch.allclose(terms["cross_entropy"], F.cross_entropy(ours[0], LABELS))
    for name in ("guidance", "logits"):
        off = settings.model_copy(update={"weights": {**settings.weights, name: 0}})
        assert name not in distillation_loss(ours, taught, LABELS, off)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_any_term_can_be_the_only_one(name, space):
    settings = LossSettings(weights={name: 3})
    guided, ours, taught = outputs(space, settings)
    terms = distillation_loss(ours, taught, LABELS, settings)
    assert terms.keys() == {name, "loss"}
    assert terms["loss"].shape == ()
    assert terms["loss"].item() == pytest.approx(3 * terms[name].item())
    terms["loss"].backward()
    first = next(module for module in guided.student.modules() if isinstance(module, torch.nn.Conv2d))
    assert first.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_weight_of_zero_leaves_a_term_out(name, space):
    settings = LossSettings(weights={**dict.fromkeys(LOSSES, 1.0), name: 0})
    assert settings.terms == {other: 1 for other in LOSSES if other != name}
    _, ours, taught = outputs(space, settings)
    terms = distillation_loss(ours, taught, LABELS, settings)
    assert terms.keys() == {*LOSSES, "loss"} - {name}
    assert terms["loss"].isfinite()
    unnamed = LossSettings(weights={other: 1 for other in LOSSES if other != name})
    assert torch.equal(terms["loss"], distillation_loss(ours, taught, LABELS, unnamed)["loss"])


def test_locality_guidance_is_the_default():
    assert LossSettings().terms == {"cross_entropy": 1.0, "guidance": 2.5}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"kl": 1}, f"unknown loss 'kl'; choices: {', '.join(LOSSES)}"),
        ({"cross_entropy": 1, "Guidance": 0}, "unknown loss 'Guidance'; choices: "),
        ({"cross_entropy": 0, "guidance": 0}, "all weights are 0, so that nothing would be learned"),
        ({}, "all weights are 0"),
        ({"cross_entropy": -1}, "greater than or equal to 0"),
    ],
)
def test_weights_that_teach_nothing_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        LossSettings(weights=weights)


def test_projections_learn_but_are_not_part_of_the_student(space):
    guided, ours, taught = outputs(space, LossSettings())
    distillation_loss(ours, taught, LABELS, LossSettings())["loss"].backward()
    assert len(guided.projections) == 3
    assert all(p.weight.grad.abs().sum() > 0 for p in guided.projections)
    assert not any("projection" in key for key in guided.student.state_dict())
    assert [p.out_channels for p in guided.projections] == [16, 32, 64]


def test_without_guidance_there_are_no_projections(space):
    guided, (_, projected, _), _ = outputs(space, LossSettings(weights={"cross_entropy": 1, "guidance": 0}))
    assert projected == ()
    assert len(guided.projections) == 0


def test_without_its_teacher_a_loss_is_the_cross_entropy():
    settings = LossSettings(weights={"cross_entropy": 0.5, "guidance": 2.5, "logits": 1.0})
    assert settings.follow_teacher
    assert settings.alone().terms == {"cross_entropy": 0.5}
    assert LossSettings(weights={"logits": 1.0}).alone().terms == {"cross_entropy": 1.0}
    assert not settings.alone().follow_teacher


def test_guidance_that_dwarfs_the_cross_entropy_is_bounded():
    """By its value; the direction of its gradient stays."""
    torch.manual_seed(0)
    ours = torch.randn(4, 5, requires_grad=True), (torch.full((4, 2, 3, 3), 9.0, requires_grad=True),) * 3
    theirs, labels = (torch.randn(4, 5), (torch.zeros(4, 2, 3, 3),) * 3), torch.tensor([0, 1, 2, 3])
    free, bound = (distillation_loss(ours, theirs, labels, LossSettings(guidance_limit=limit)) for limit in (None, 1.0))
    assert bound["guidance"] == free["guidance"]  # terms are told as they are
    torch.testing.assert_close(bound["loss"], 2 * free["cross_entropy"])
    (gradient,) = torch.autograd.grad(bound["loss"], ours[1][0], retain_graph=True)
    (whole,) = torch.autograd.grad(free["loss"], ours[1][0])
    torch.testing.assert_close(gradient, whole * free["cross_entropy"].detach() / (2.5 * free["guidance"].detach()))
    small = distillation_loss(
        ours, (theirs[0], tuple(m.detach() for m in ours[1])), labels, LossSettings(guidance_limit=1)
    )
    assert small["loss"] == small["cross_entropy"]
