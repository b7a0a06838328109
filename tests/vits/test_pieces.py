"""Parts of architectures: they are all that one costs, as the built models and the published numbers say too."""

import itertools
import json
from collections import Counter

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tvt_ray.vits import build_student
from tvt_ray.vits.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.vits.blocks import Block, MeanHead
from tvt_ray.vits.pieces import Cost, add_costs, conv_output_size, linear_cost
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


def test_arithmetic_equals_the_built_model(space):
    for arch in itertools.islice(space.enumerate(), 0, None, 5):
        assert space.cost(arch, 7) == _built(space, arch, 7)


def _built(space, arch, num_classes):
    student = build_student(space, arch, num_classes, seed=0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        student(torch.zeros(1, 3, space.image_size, space.image_size))
    return Cost(sum(p.numel() for p in student.parameters()), counter.get_total_flops() // 2)


def test_supernet_attention_is_counted_too():
    space = AutoFormerSpace(image_size=64, embed_dim=(96,), depth=(2, 3), head_dim=64, relative_position=True)
    for arch in itertools.islice(space.enumerate(), 0, None, 7):
        assert space.cost(arch, 10) == _built(space, arch, 10)
    costs = [space.cost(arch, 10) for arch in space.enumerate()]
    assert space.smallest(10).params == min(c.params for c in costs)


@pytest.mark.parametrize("space", [AutoFormerSpace(), PiTSpace()], ids=lambda space: space.name)
def test_parameters_of_the_published_architectures(space, shared_data):
    lines = (shared_data / "vit_bench_101" / f"{space.name}_dev.jsonl").read_text().splitlines()
    for entry in map(json.loads, lines):
        arch = space.from_json(entry["arch"])
        assert space.cost(arch, 100).params == entry["params_100_classes"]
    student = build_student(space, arch, 100, seed=0)
    assert sum(p.numel() for p in student.parameters()) == entry["params_100_classes"]


def test_published_space_sizes_and_parameter_ranges():
    assert AutoFormerSpace().size() == 1_056_964_608
    assert AutoFormerSpace().smallest(100).params == 5_100_196
    assert PiTSpace().size() == 1600
    assert PiTSpace().smallest(100).params == 156_612
    assert PiTSpace().largest(100).params == 29_472_420
    assert PiTSpace().map_sizes == (27, 14, 7)


def test_plain_vits_cost_what_their_papers_say():
    """DeiT-Ti and DeiT-S by timm's own count; ViT_C of Xiao et al. 2021, table 1, of 1 and 4 GF with BatchNorms.

    A BatchNorm has as many parameters as a LayerNorm. The table's convolutions have no bias and its count is rounded.
    """
    space = ViTSpace(embed_dim=(192, 384), depth=(11, 12), head_dim=(64,), mlp_ratio=(3, 4), patch_size=(16,))
    deit = [ViTArch(dim, 12, dim // 64, 4, 16, "patch", "token") for dim in (192, 384)]
    assert [space.cost(arch, 1000).params for arch in deit] == [5_717_416, 22_050_664]
    early = [space.cost(ViTArch(dim, 11, dim // 64, 3, 16, "conv", "token"), 1000) for dim in (192, 384)]
    assert [round(cost.params / 1e6, 1) for cost in early] == [4.6, 17.8]
    assert [round(cost.flops / 1e9, 1) for cost in early] == [1.1, 4.0]


@pytest.mark.slow
def test_stems_of_many_halvings_and_odd_rests_are_counted():
    space = ViTSpace(
        image_size=96, embed_dim=(8, 40), depth=(1,), head_dim=(8,), mlp_ratio=(1.3,), patch_size=(2, 12, 32)
    )
    for arch in space.enumerate():
        assert space.cost(arch, 3) == _built(space, arch, 3)


def test_a_linear_has_a_bias_and_runs_at_every_position():
    assert linear_cost(tokens=5, inputs=3, outputs=4) == Cost(3 * 4 + 4, 5 * 3 * 4)


def test_a_block_is_its_four_linears_two_norms_and_two_products():
    linears = [linear_cost(17, *sizes) for sizes in ((24, 3 * 16), (16, 24), (24, 36), (36, 24))]
    norms, products = Cost(2 * (24 + 24), 0), Cost(0, 2 * 17 * 17 * 16)
    assert Block.part(17, 24, 2, 16, 36).cost == add_costs([*linears, norms, products])


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [(224, 16, 8, 0), (27, 3, 2, 1), (32, 8, 8, 0)])
def test_a_convolutions_map_is_as_large_as_torch_makes_it(size, kernel, stride, padding):
    made = torch.nn.Conv2d(1, 1, kernel, stride, padding)(torch.zeros(1, 1, size, size))
    assert conv_output_size(size, kernel, stride, padding) == made.shape[-1]
