"""Stems, by hand."""

import pytest
import torch

from tests.vits.inputs import images
from tvt_ray.vits import build_student
from tvt_ray.vits.stems import ConvShape, ConvStem, Patches
from tvt_ray.vits.vit import ViTArch, ViTSpace

SPACE = ViTSpace(image_size=32, embed_dim=(24,), depth=(1,), head_dim=(8,), patch_size=(4,))


def test_norms_and_nonlinearities_stand_between_the_convolutions():
    stem = build_student(SPACE, ViTArch(24, 1, 3, 1, 4, "conv", "mean"), 5, seed=0).patch_embed
    features = images(SPACE)
    with torch.no_grad():
        for conv, norm in zip(stem.backbone.convs, stem.backbone.norms, strict=True):
            features = conv(features)
            mean, variance = features.mean(1, keepdim=True), features.var(1, correction=0, keepdim=True)
            features = ((features - mean) / (variance + norm.eps).sqrt()).clamp(min=0)
        expected = stem.proj(features).flatten(2).mT
        assert len(stem.backbone.convs) == 2
        assert torch.allclose(stem(images(SPACE)), expected, atol=1e-5)
        assert torch.allclose(stem.infer(images(SPACE)), expected, atol=1e-5)


def test_patches_are_a_convolution_alone():
    stem = build_student(SPACE, ViTArch(24, 1, 3, 1, 4, "patch", "mean"), 5, seed=0).patch_embed
    assert list(dict(stem.named_parameters())) == ["proj.weight", "proj.bias"]
    with torch.no_grad():
        patch = images(SPACE)[0, :, 4:8, 8:12]  # row 1, column 2
        expected = (stem.proj.weight * patch).sum((1, 2, 3)) + stem.proj.bias
        assert torch.allclose(stem(images(SPACE))[0, 1 * 8 + 2], expected, atol=1e-5)


def test_a_patch_stem_is_one_convolution():
    assert Patches.convs(192, 16) == (ConvShape(3, 192, 16, 16, 0),)


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
    assert list(ConvStem.convs(dim, patch)) == expected
