"""Starts in closed form: what each is said to be, on real students."""

import pytest
import torch
import torch.nn.functional as F

from tvt_ray.vits import build_student
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.pit import PiTSpace
from tvt_ray.vits.starts import NOISE, STARTS, begin, sine_positions
from tvt_ray.vits.vit import ViTSpace

SPACE = ViTSpace(image_size=64, patch_size=[8], embed_dim=[96], depth=[2], head_dim=[48], pool=["mean"])


def student_of(space=SPACE, start="normal", positions="learned", seed=3):
    student = build_student(space, next(space.enumerate()), 5, seed=0)
    begin(student, start, positions, seed)
    return student


def parts(student, block=0):
    attention = student.attention_blocks[block].attn
    weight = attention.qkv.weight.detach()
    return weight.view(3, attention.num_heads, -1, weight.shape[1]), attention.proj.weight.detach()


def test_normal_is_what_was_drawn():
    drawn = build_student(SPACE, next(SPACE.enumerate()), 5, seed=0).state_dict()
    for name, tensor in student_of().state_dict().items():
        assert torch.equal(tensor, drawn[name])


@pytest.mark.parametrize("start", [name for name in STARTS if name != "normal"])
def test_a_start_changes_attention_alone_and_by_its_seed(start):
    drawn, begun, again, other = (
        student_of(start=name, seed=seed).state_dict()
        for name, seed in (("normal", 3), (start, 3), (start, 3), (start, 4))
    )
    changed = {name for name in drawn if not torch.equal(drawn[name], begun[name])}
    assert {name.split(".", 2)[2] for name in changed} <= {"attn.qkv.weight", "attn.proj.weight"}
    assert {name.split(".")[1] for name in changed} == {"0", "1"}
    assert all(torch.equal(begun[name], again[name]) for name in drawn)
    if start != "conditioned":
        assert any(not torch.equal(begun[name], other[name]) for name in drawn)
    assert all(torch.isfinite(tensor).all() for tensor in begun.values())


def test_mimetic_makes_values_and_projection_the_negative_identity_with_noise():
    weights, projection = parts(student_of(start="mimetic"))
    product = projection @ weights[2].flatten(0, 1)
    assert product.diagonal().mean() == pytest.approx(-0.4, abs=0.03)
    off = product[~torch.eye(96, dtype=torch.bool)]
    assert off.std() == pytest.approx(NOISE[1] / 96**0.5, rel=0.05)
    for query, key in zip(weights[0], weights[1], strict=True):
        product = query.T @ key  # of half the rank, so that half the identity or more is left
        assert 0.35 < product.diagonal().mean() < 0.75
        assert torch.linalg.matrix_rank(product) == 48


def test_conditioned_makes_every_singular_value_one():
    weights, _ = parts(student_of(start="conditioned"), block=1)
    for each in (*weights[0], *weights[1], weights[2].flatten(0, 1)):
        assert torch.allclose(torch.linalg.svdvals(each), torch.ones(min(each.shape)), atol=1e-4)
    assert torch.equal(weights[2].flatten(0, 1), torch.eye(96))


def test_impulse_has_each_head_look_at_one_neighbour():
    student = student_of(start="impulse", positions="sine")
    places = F.layer_norm(student.pos_embed, (96,))
    shares = student.attention_blocks[0].attn.probabilities(places)[0]
    assert shares.shape == (2, 64, 64)
    rows, columns = torch.arange(64) // 8, torch.arange(64) % 8
    for head in shares:
        looked = head.argmax(1)
        steps = torch.stack([rows[looked] - rows, columns[looked] - columns], 1)
        inside = (rows > 0) & (rows < 7) & (columns > 0) & (columns < 7)
        usual = steps[inside].mode(0).values
        assert (steps[inside] == usual).all(1).float().mean() > 0.8
        assert usual.abs().max() <= 1


def test_sine_positions_are_fixed_and_tell_places_apart():
    positions = sine_positions(8, 96, 1)
    assert positions.shape == (1, 65, 96)
    assert not positions[0, 0].any()
    near = positions[0, 1:] @ positions[0, 1:].T
    assert (near.argmax(1) == torch.arange(64)).all()
    student = student_of(positions="sine")
    assert not student.pos_embed.requires_grad
    assert torch.equal(student.pos_embed, sine_positions(8, 96))
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions(8, 30)


def test_spaces_with_positions_of_another_form():
    space = AutoFormerSpace(image_size=32, patch_size=8, embed_dim=[48], depth=[2], num_heads=[3], mlp_ratio=[2])
    begun = student_of(space, "mimetic", "sine")  # queries of 64 channels a head, four times the width
    assert begun(torch.zeros(1, 3, 32, 32)).isfinite().all()
    assert begun.pos_embed.shape == (1, 17, 48)
    pit = PiTSpace(
        image_size=32, patch_size=8, stride=4, base_dim=[16], num_heads=[2], mlp_ratio=[2], depth=[(1, 1, 1)]
    )
    assert student_of(pit, "impulse").num_blocks == 3
    with pytest.raises(ValueError, match="PiT's are a map"):
        student_of(pit, "normal", "sine")
