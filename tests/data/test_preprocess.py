import pytest
import torch
import torch.nn.functional as F

from tvt_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalize, resize


def test_normalised_images_have_mean_and_deviation_taken_out():
    grey = torch.tensor(IMAGENET_MEAN)[None, :, None, None].expand(1, 3, 2, 2)
    assert not normalize(grey).any()
    assert normalize(grey + 1)[0, :, 0, 0].tolist() == pytest.approx([1 / std for std in IMAGENET_STD])
    assert torch.allclose(normalize(grey, (0, 0, 0), (2, 2, 2)), grey / 2)


def test_an_image_of_the_right_size_is_itself():
    images = torch.rand(2, 3, 8, 8)
    assert resize(images, 8) is images


def test_resizing_is_low_pass_filtered_where_it_shrinks():
    images = torch.rand(2, 3, 16, 16)
    plain = {"mode": "bilinear", "align_corners": False}
    assert torch.equal(resize(images, 24), F.interpolate(images, (24, 24), **plain))
    assert torch.equal(resize(images, 6), F.interpolate(images, (6, 6), antialias=True, **plain))
    assert not torch.allclose(resize(images, 6), F.interpolate(images, (6, 6), **plain))
