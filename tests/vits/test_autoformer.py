"""What is the AutoFormer family's own."""

import collections
import math
import random

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tests.vits.inputs import images
from tvt_ray.vits import build_student
from tvt_ray.vits.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.vits.draws import INIT_STD

SPACE = SMALL_SPACES["autoformer"]
FIXED_HEADS = SPACE.model_copy(update={"head_dim": 8})
RELATIVE = SPACE.model_copy(update={"relative_position": True})
ARCH = AutoFormerArch(24, (2, 3, 2), (1.5, 2.0, 2.0))


@pytest.mark.parametrize(
    "copy",
    [
        AutoFormerArch(24, (3, 3, 3), (1.5, 2.0, 2.0)),  # other heads
        AutoFormerArch(24, (2, 3, 2), (2.0, 2.0, 1.5)),  # ratios in another order
        AutoFormerArch(24, (3, 2, 3), (2.0, 1.5, 2.0)),
    ],
)
def test_heads_and_the_order_of_ratios_do_not_make_a_shape(copy):
    assert SPACE.arch_id(copy) != SPACE.arch_id(ARCH)
    assert SPACE.shape(copy) == SPACE.shape(ARCH)
    assert SPACE.cost(copy, 10) == SPACE.cost(ARCH, 10)


@pytest.mark.parametrize(
    "other",
    [
        AutoFormerArch(36, (2, 3, 2), (1.5, 2.0, 2.0)),  # width
        AutoFormerArch(24, (2, 3, 2, 2), (1.5, 2.0, 2.0, 2.0)),  # depth
        AutoFormerArch(24, (2, 3, 2), (1.5, 1.5, 2.0)),  # the same ratios, otherwise often
        AutoFormerArch(24, (2, 3, 2), (2.0, 2.0, 2.0)),
    ],
)
def test_width_depth_and_how_often_a_ratio_occurs_make_a_shape(other):
    assert SPACE.shape(other) != SPACE.shape(ARCH)
    assert SPACE.cost(other, 10) != SPACE.cost(ARCH, 10)


def test_a_space_has_as_many_shapes_as_multisets_of_ratios():
    assert len({SPACE.shape(arch) for arch in SPACE.enumerate()}) == 3 + 4  # of 2 blocks and of 3


@pytest.mark.parametrize("space", [FIXED_HEADS, RELATIVE], ids=["head_dim", "relative_position"])
def test_heads_count_where_they_change_the_size_of_a_weight(space):
    more, reordered = AutoFormerArch(24, (3, 3, 2), ARCH.mlp_ratio), AutoFormerArch(24, (3, 2, 2), ARCH.mlp_ratio)
    assert space.shape(more) != space.shape(ARCH)
    assert space.cost(more, 10).params != space.cost(ARCH, 10).params
    assert space.shape(reordered) == space.shape(ARCH)
    costs = collections.defaultdict(set)
    for arch in space.enumerate():
        costs[space.shape(arch)].add(space.cost(arch, 10))
    assert all(len(different) == 1 for different in costs.values())


def test_a_description_says_how_often_each_choice_comes_in_a_row():
    arch = AutoFormerArch(192, (3, 3, 3, 4), (3.5, 4.0, 3.5, 3.5))
    assert AutoFormerSpace().describe(arch) == "width 192, depth 4, heads 3x3 4, ratios 3.5 4 2x3.5"


def test_a_tables_columns_name_every_block():
    assert SPACE.columns(ARCH) == {"width": "24", "depth": "3", "heads": "2 3 2", "ratios": "1.5 2 2"}


def test_ids_never_change_between_versions():
    autoformer = AutoFormerArch(192, (3, 4, 3, 4), (3.5, 4.0, 3.5, 3.5))
    assert AutoFormerSpace().arch_id(autoformer) == "autoformer-e192-d4-249efe0d6e58"


def test_heads_and_ratios_are_per_block():
    with pytest.raises(ValueError, match="one entry per block each; got 3 and 2"):
        AutoFormerArch(24, (2, 2, 2), (1.5, 2.0))


def entry(**changes):
    return {"embed_dim": 192, "depth": 12, "num_heads": [3] * 12, "mlp_ratio": [4] * 12, **changes}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (entry(embed_dim=200), "192, 216, 240"),
        (entry(num_heads=[3] * 11), "length depth"),
        (entry(depth=2, num_heads=[3, 3], mlp_ratio=[4, 4]), "12, 13, 14"),
        ({"embed_dim": 192}, "lacks depth"),
        ([192], "JSON object"),
        (entry(width=192), "has unknown width"),
        (entry(num_heads=[3] * 11 + [5]), r"num_heads\[11\] is 5, allowed: 3, 4"),
    ],
)
def test_wrong_architectures_are_refused_with_the_choices(entry, message):
    with pytest.raises(ValueError, match=message):
        AutoFormerSpace().from_json(entry)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 30},
        {"embed_dim": (100,), "num_heads": (3,)},
        {"depth": ()},
        {"mlp_ratio": (4.0, 4.0)},
        {"num_heads": (0,)},
    ],
)
def test_impossible_spaces_cannot_be_written(settings):
    with pytest.raises(ValueError, match=r"multiple|divide|at least one|once|positive"):
        AutoFormerSpace(**settings)


def test_features_are_doublings_in_the_mean_over_blocks():
    arch = AutoFormerArch(192, (2, 4), (2.0, 8.0))
    space = AutoFormerSpace(embed_dim=(192,), depth=(2,), num_heads=(2, 4), mlp_ratio=(2, 8))
    expected = {"width": 7 + math.log2(1.5), "depth": 1.0, "heads": 1.5, "mlp_ratio": 2.0}
    assert space.features(arch) == pytest.approx(expected)


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
