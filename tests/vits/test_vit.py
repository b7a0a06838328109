"""What is the ViT family's own: its choices, and that its students are timm's."""

import dataclasses
import math
import random

import pytest
import torch

from tests.vits.inputs import images
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits import build_student
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
        ({"stem": ("hybrid",)}, "a stem is patch, conv, or stageK, .* got 'hybrid'"),
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


SMALL = ViTSpace(
    image_size=32, embed_dim=(24, 48), depth=(1, 3), head_dim=(8, 12), mlp_ratio=(1.5, 3), patch_size=(4, 8)
)
PATCHED = [arch for arch in SMALL.enumerate() if arch.stem == "patch"]


def timm_model(space, arch, num_classes):
    ensure_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=space.image_size,
        patch_size=arch.patch_size,
        num_classes=num_classes,
        global_pool={"token": "token", "mean": "avg"}[arch.pool],
        class_token=arch.pool == "token",
        embed_dim=arch.embed_dim,
        depth=arch.depth,
        num_heads=arch.num_heads,
        mlp_ratio=arch.mlp_ratio,
    ).eval()


@pytest.mark.parametrize("arch", PATCHED[::5], ids=SMALL.arch_id)
def test_a_student_with_patches_computes_what_timms_vision_transformer_does(arch):
    student, model = build_student(SMALL, arch, 5, seed=0), timm_model(SMALL, arch, 5)
    model.load_state_dict(student.state_dict())
    with torch.no_grad():
        # Without a class token timm's tokens lie in another order in memory, and their mean is summed in that.
        bound = 0 if arch.pool == "token" else 1e-6
        assert (student(images(SMALL, 8)) - model(images(SMALL, 8))).abs().max() <= bound


def test_patches_are_initialised_as_timm_does_but_for_the_class_token():
    arch = ViTArch(48, 3, 6, 3.0, 4, "patch", "token")
    ours, theirs = build_student(SMALL, arch, 5, seed=0).state_dict(), timm_model(SMALL, arch, 5).state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if value.numel() > 1000:
            assert value.std().item() == pytest.approx(theirs[key].std().item(), rel=0.1), key
        elif key not in ("cls_token", "patch_embed.proj.bias", "head.weight"):
            assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_positions_and_class_token_are_those_that_the_pooling_needs(pool):
    student = build_student(SMALL, ViTArch(24, 1, 3, 1.5, 8, "conv", pool), 5, seed=0)
    assert student.pos_embed.shape == (1, 17 if pool == "token" else 16, 24)
    assert (student.cls_token is not None) == (pool == "token")


@pytest.mark.parametrize("arch", [arch for arch in SMALL.enumerate() if arch.depth == 1][::5], ids=SMALL.arch_id)
def test_an_image_is_seen_alike_whatever_is_beside_it(arch):
    """In training too: no statistics of a batch are used, nor are any kept."""
    student = build_student(SMALL, arch, 5, seed=0).train()
    assert not list(student.buffers())
    with torch.no_grad():  # a single block drops nothing
        assert torch.allclose(student(images(SMALL, 4))[:1], student(images(SMALL, 4)[:1]), atol=1e-5)
