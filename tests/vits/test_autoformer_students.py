"""What is the AutoFormer students' own: initialisation and relative positions."""

import random

import pytest
import torch

from tests.vits.inputs import images
from tvt_ray.vits import build_student
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.draws import INIT_STD


def test_initialisation_is_the_published_one():
    space = AutoFormerSpace()
    student = build_student(space, space.sample(random.Random(0)), 100, seed=0)
    qkv = student.blocks[0].attn.qkv
    assert qkv.weight.std().item() == pytest.approx(INIT_STD, rel=0.01)
    assert not qkv.bias.any()
    bound = 1 / (3 * 16 * 16) ** 0.5
    assert student.patch_embed.proj.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert student.norm.weight.eq(1).all()


def test_relative_positions_change_the_result():
    plain = AutoFormerSpace(image_size=64, embed_dim=(96,), depth=(2,))
    relative = AutoFormerSpace(image_size=64, embed_dim=(96,), depth=(2,), relative_position=True)
    arch = plain.sample(random.Random(0))
    student = build_student(relative, arch, 5, seed=0)
    with torch.no_grad():
        before = student(images(plain))
        for block in student.blocks:
            block.attn.relative_keys.rows.zero_()
            block.attn.relative_keys.columns.zero_()
            block.attn.relative_values.rows.zero_()
            block.attn.relative_values.columns.zero_()
        after = student(images(plain))
        same = build_student(plain, arch, 5, seed=0)
        same.load_state_dict({k: v for k, v in student.state_dict().items() if "relative" not in k})
        assert not torch.allclose(before, after)
        assert torch.allclose(same(images(plain)), after, atol=1e-5)


def test_relative_positions_run_fused_as_well():
    space = AutoFormerSpace(image_size=32, patch_size=8, embed_dim=(24,), depth=(2,), relative_position=True)
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    with torch.inference_mode():
        plain, fused = (student.feature_maps(images(space), (1,), fused=fused)[1] for fused in (False, True))
    assert torch.allclose(plain, fused, atol=1e-5)
