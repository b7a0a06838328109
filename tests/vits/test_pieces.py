"""Parts of architectures: they are all that an architecture costs."""

import itertools
from collections import Counter

import pytest

from tvt_ray.vits.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.vits.blocks import Block, MeanHead
from tvt_ray.vits.costs import Cost, add_costs
from tvt_ray.vits.pit import PiTArch, PiTSpace
from tvt_ray.vits.stems import ConvStem, Patches
from tvt_ray.vits.vit import ViTArch, ViTSpace


def test_parts_add_up_to_the_architecture(space):
    for arch in itertools.islice(space.enumerate(), 0, None, 7):
        parts = space.parts(arch, 7)
        assert add_costs(part.cost for part in parts) == space.cost(arch, 7)
        assert sum("block" in part.kind for part in parts) == space.num_blocks(arch)
        assert "patches" in parts[0].kind or parts[0].kind == "conv_stem"
        assert (parts[-1].kind, parts[-1].sizes[-1]) == ("head", 7)


def test_a_space_has_fewer_parts_than_architectures():
    space = AutoFormerSpace()
    parts = {part for depth in (12, 14) for part in space.parts(AutoFormerArch(192, (3, 4) * 6, (3.5, 4) * 6), depth)}
    assert Counter(part.kind for part in parts) == {"patches": 1, "block": 2, "head": 2}


def test_parts_are_those_of_the_student_in_order():
    arch = PiTArch(16, (2, 1, 1), (2, 4, 4), 2)
    assert [(part.kind, *part.sizes) for part in PiTSpace().parts(arch, 5)] == [
        ("patches", 224, 1, 27**2, 3, 32, 16, 8, 0),
        ("block", 27**2 + 1, 32, 2, 32, 64),
        ("block", 27**2 + 1, 32, 2, 32, 64),
        ("pool", 32, 64, 27),
        ("block", 14**2 + 1, 64, 4, 64, 128),
        ("pool", 64, 64, 14),
        ("block", 7**2 + 1, 64, 4, 64, 128),
        ("head", 1, 64, 5),
    ]


@pytest.mark.parametrize(
    ("stem", "pool", "kind", "normed"), [("patch", "token", "patches", 1), ("conv", "mean", "conv_stem", 196)]
)
def test_stem_and_pooling_decide_the_first_and_the_last_part(stem, pool, kind, normed):
    parts = ViTSpace().parts(ViTArch(96, 2, 3, 2, 16, stem, pool), 5)
    assert (parts[0].kind, parts[-1].sizes) == (kind, (normed, 96, 5))


def test_relative_positions_make_another_kind_of_block():
    space = AutoFormerSpace(head_dim=64, relative_position=True)
    block = space.parts(AutoFormerArch(192, (3,) * 12, (4,) * 12), 5)[1]
    assert block.kind == "relative_block"
    assert block.sizes == (197, 192, 3, 192, 768)
    assert block.cost.flops == Block.part(197, 192, 3, 192, 768).cost.flops + 2 * 197**2 * 192


def test_a_heads_values_grow_with_what_it_norms():
    assert MeanHead.part(1, 8, 3).cost == MeanHead.part(9, 8, 3).cost == Cost(16 + 8 * 3 + 3, 24)
    assert MeanHead.part(9, 8, 3).activations - MeanHead.part(1, 8, 3).activations == 3 * 8 * 8


def test_more_heads_cost_nothing_but_logits():
    few, many = Block.part(17, 24, 2, 24, 48), Block.part(17, 24, 3, 24, 48)
    assert few.cost == many.cost
    assert many.activations - few.activations == 2 * 17**2


def test_a_stem_counts_its_norms_but_for_the_last():
    one = Patches.part(32, 1, 65, *(3, 8, 4, 4, 0))
    two = ConvStem.part(32, 1, 65, *(3, 4, 2, 2, 0), *(4, 8, 2, 2, 0))
    assert one.cost == Cost(3 * 16 * 8 + 8 + 66 * 8, 64 * 3 * 16 * 8)
    assert two.cost == Cost(3 * 4 * 4 + 4 + 4 * 4 * 8 + 8 + 2 * 4 + 66 * 8, 256 * 48 + 64 * 128)
