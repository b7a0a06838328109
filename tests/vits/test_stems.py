"""The convolutional stem, by hand."""

import torch

from tests.vits.inputs import images
from tvt_ray.vits import build_student
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
