"""What is the ViT space's own."""

import dataclasses
import math
import random

import pytest

from tvt_ray.vits.stems import ConvShape
from tvt_ray.vits.vit import ViTArch, ViTSpace

SPACE = ViTSpace()
ARCH = ViTArch(192, 6, 4, 3.0, 16, "conv", "mean")
OTHERS = {"embed_dim": 96, "depth": 4, "mlp_ratio": 4.0, "patch_size": 32, "stem": "patch", "pool": "token"}


def with_heads(arch, **changes):
    """Another architecture with heads of the same width."""
    dim = changes.get("embed_dim", arch.embed_dim)
    return dataclasses.replace(arch, num_heads=dim * arch.num_heads // arch.embed_dim, **changes)


def test_a_space_is_every_combination():
    assert SPACE.size() == 4 * 7 * 2 * 4 * 2 * 2 * 2 == 1792


@pytest.mark.parametrize("choice", OTHERS)
def test_every_choice_but_the_heads_makes_a_shape(choice):
    other = with_heads(ARCH, **{choice: OTHERS[choice]})
    assert other in SPACE
    assert SPACE.shape(other) != SPACE.shape(ARCH)
    assert SPACE.cost(other, 10) != SPACE.cost(ARCH, 10)


def test_heads_do_not_make_a_shape():
    copy = dataclasses.replace(ARCH, num_heads=6)
    assert SPACE.arch_id(copy) != SPACE.arch_id(ARCH)
    assert SPACE.shape(copy) == SPACE.shape(ARCH)
    assert SPACE.cost(copy, 10) == SPACE.cost(ARCH, 10)


def test_a_crossover_takes_the_width_of_the_heads_with_any_width_of_the_trunk():
    first, second = ViTArch(96, 6, 3, 3.0, 16, "conv", "mean"), ViTArch(384, 6, 8, 3.0, 16, "conv", "mean")
    rng = random.Random(0)
    children = {SPACE.crossover(first, second, rng) for _ in range(100)}
    assert {(each.embed_dim, each.embed_dim // each.num_heads) for each in children} == {
        (96, 32), (96, 48), (384, 32), (384, 48),
    }  # fmt: skip


def test_a_patch_stem_is_one_convolution():
    arch = dataclasses.replace(ARCH, stem="patch")
    assert arch.stem_convs == (ConvShape(3, 192, 16, 16, 0),)


@pytest.mark.parametrize(
    ("dim", "patch", "expected"),
    [
        (192, 16, [(3, 24, 3, 2, 1), (24, 48, 3, 2, 1), (48, 96, 3, 2, 1), (96, 192, 3, 2, 1), (192, 192, 1, 1, 0)]),
        (192, 4, [(3, 96, 3, 2, 1), (96, 192, 3, 2, 1), (192, 192, 1, 1, 0)]),
        (192, 12, [(3, 48, 3, 2, 1), (48, 96, 3, 2, 1), (96, 192, 3, 3, 0)]),  # three pixels are left
        (48, 16, [(3, 16, 3, 2, 1), (16, 16, 3, 2, 1), (16, 24, 3, 2, 1), (24, 48, 3, 2, 1), (48, 48, 1, 1, 0)]),
        (8, 2, [(3, 16, 3, 2, 1), (16, 8, 1, 1, 0)]),
    ],
)
def test_a_convolutional_stem_halves_the_map_and_doubles_the_channels(dim, patch, expected):
    """The first is the stem of ViT_C-1GF (Xiao et al. 2021): 24, 48, 96, 192 channels, then 1 x 1."""
    arch = ViTArch(dim, 6, dim // 8, 3.0, patch, "conv", "mean")
    assert list(arch.stem_convs) == expected


def test_a_description_names_every_choice():
    assert SPACE.describe(ARCH) == "width 192, depth 6, heads 4, ratio 3, patches 16, stem conv, pool mean"


def test_ids_never_change_between_versions():
    assert SPACE.arch_id(ARCH) == "vit-e192-d6-h4-m3-p16-conv-mean"
    assert SPACE.arch_id(dataclasses.replace(ARCH, mlp_ratio=2.5)) == "vit-e192-d6-h4-m2.5-p16-conv-mean"


def test_features_are_logarithms_and_flags():
    assert SPACE.features(ARCH) == {
        "width": math.log2(192),
        "depth": math.log2(6),
        "head_width": math.log2(48),
        "mlp_ratio": math.log2(3),
        "tokens": math.log2(14 * 14),
        "has_conv_stem": 1.0,
        "has_mean_pool": 1.0,
    }
    wider = SPACE.features(with_heads(ARCH, embed_dim=384, stem="patch", pool="token"))
    assert wider["width"] == SPACE.features(ARCH)["width"] + 1
    assert (wider["has_conv_stem"], wider["has_mean_pool"]) == (0.0, 0.0)


def entry(**changes):
    return {**SPACE.to_json(ARCH), **changes}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (entry(embed_dim=100), "embed_dim is 100, allowed: 96, 192, 288, 384"),
        (entry(num_heads=5), "num_heads is 5, allowed: 6, 4"),
        (entry(num_heads=[4]), r"num_heads is \[4\], allowed: 6, 4"),
        (entry(patch_size=8), "patch_size is 8, allowed: 16, 32"),
        (entry(stem="hybrid"), "stem is 'hybrid', allowed: patch, conv"),
        (entry(pool="map"), "pool is 'map', allowed: token, mean"),
        (entry(head_dim=32), "has unknown head_dim"),
        ({"embed_dim": 192}, "lacks depth, num_heads"),
    ],
)
def test_wrong_architectures_are_refused_with_the_choices(entry, message):
    with pytest.raises(ValueError, match=message):
        SPACE.from_json(entry)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": (16, 30)}, "image_size 224 is not a multiple of patch_size 30"),
        ({"patch_size": (7,)}, "every patch_size is even; got 7"),
        ({"head_dim": (64,)}, "embed_dim 96 is not a multiple of head_dim 64"),
        ({"stem": ("hybrid",)}, "'patch' or 'conv'"),
        ({"stem": ()}, "at least one"),
        ({"pool": ("mean", "mean")}, "once"),
        ({"embed_dim": (0,)}, "positive"),
    ],
)
def test_impossible_spaces_cannot_be_written(settings, message):
    with pytest.raises(ValueError, match=message):
        ViTSpace(**settings)


def test_patches_alone_may_be_odd():
    assert ViTSpace(patch_size=(7,), stem=("patch",)).map_size(ViTArch(96, 2, 2, 1.0, 7, "patch", "mean")) == 32


def test_a_space_of_one_has_nothing_to_mutate_to():
    space = ViTSpace(embed_dim=(96,), depth=(2,), head_dim=(32,), mlp_ratio=(4,), patch_size=(16,), stem=("conv",))
    space = space.model_copy(update={"pool": ("mean",)})
    (arch,) = space.enumerate()
    with pytest.raises(ValueError, match="single architecture"):
        space.mutate(arch, random.Random(0))
