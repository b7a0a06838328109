"""What is the ViT students' own: that they are timm's, and the stem."""

import pytest
import torch

from tests.vits.inputs import images
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits import build_student
from tvt_ray.vits.vit import ViTArch, ViTSpace

SPACE = ViTSpace(
    image_size=32, embed_dim=(24, 48), depth=(1, 3), head_dim=(8, 12), mlp_ratio=(1.5, 3), patch_size=(4, 8)
)
PATCHED = [arch for arch in SPACE.enumerate() if arch.stem == "patch"]


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


@pytest.mark.parametrize("arch", PATCHED[::5], ids=SPACE.arch_id)
def test_a_student_with_patches_computes_what_timms_vision_transformer_does(arch):
    student, model = build_student(SPACE, arch, 5, seed=0), timm_model(SPACE, arch, 5)
    model.load_state_dict(student.state_dict())
    with torch.no_grad():
        # Without a class token timm's tokens lie in another order in memory, and their mean is summed in that.
        bound = 0 if arch.pool == "token" else 1e-6
        assert (student(images(SPACE, 8)) - model(images(SPACE, 8))).abs().max() <= bound


def test_patches_are_initialised_as_timm_does_but_for_the_class_token():
    arch = ViTArch(48, 3, 6, 3.0, 4, "patch", "token")
    ours, theirs = build_student(SPACE, arch, 5, seed=0).state_dict(), timm_model(SPACE, arch, 5).state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if value.numel() > 1000:
            assert value.std().item() == pytest.approx(theirs[key].std().item(), rel=0.1), key
        elif key not in ("cls_token", "patch_embed.proj.bias", "head.weight"):
            assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_positions_and_class_token_are_those_that_the_pooling_needs(pool):
    student = build_student(SPACE, ViTArch(24, 1, 3, 1.5, 8, "conv", pool), 5, seed=0)
    assert student.pos_embed.shape == (1, 17 if pool == "token" else 16, 24)
    assert (student.cls_token is not None) == (pool == "token")


@pytest.mark.parametrize("arch", [arch for arch in SPACE.enumerate() if arch.depth == 1][::5], ids=SPACE.arch_id)
def test_an_image_is_seen_alike_whatever_is_beside_it(arch):
    """In training too: no statistics of a batch are used, nor are any kept."""
    student = build_student(SPACE, arch, 5, seed=0).train()
    assert not list(student.buffers())
    with torch.no_grad():  # a single block drops nothing
        assert torch.allclose(student(images(SPACE, 4))[:1], student(images(SPACE, 4)[:1]), atol=1e-5)
