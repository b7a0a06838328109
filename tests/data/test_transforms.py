import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tvt_ray.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentSettings,
    check_augmentation,
    eval_batch_size,
    eval_loader,
    eval_tensor,
    normalize,
    resize,
    teacher_train_transform,
    train_transform,
)
from tvt_ray.errors import UsageError


def test_normalised_images_have_mean_and_deviation_taken_out():
    grey = torch.tensor(IMAGENET_MEAN)[None, :, None, None].expand(1, 3, 2, 2)
    assert not normalize(grey).any()
    assert normalize(grey + 1)[0, :, 0, 0].tolist() == pytest.approx([1 / std for std in IMAGENET_STD])


def test_an_image_of_the_right_size_is_itself():
    images = torch.rand(2, 3, 8, 8)
    assert resize(images, 8) is images


def test_resizing_is_low_pass_filtered_where_it_shrinks():
    images = torch.rand(2, 3, 16, 16)
    plain = {"mode": "bilinear", "align_corners": False}
    assert torch.equal(resize(images, 24), F.interpolate(images, (24, 24), **plain))
    assert torch.equal(resize(images, 6), F.interpolate(images, (6, 6), antialias=True, **plain))
    assert not torch.allclose(resize(images, 6), F.interpolate(images, (6, 6), **plain))


def test_evaluation_takes_the_centre_square_and_imagenet_normalisation():
    array = np.zeros((20, 40, 3), np.uint8)
    array[:, 10:30] = (255, 0, 51)
    tensor = eval_tensor(Image.fromarray(array), 8)
    wanted = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(tensor, wanted[:, None, None].expand(3, 8, 8), atol=1e-5)


def test_training_transforms_give_the_same_kind_of_tensor(digits):
    image = digits.train[0][0]
    random.seed(0)
    torch.manual_seed(0)  # erased pixels are normal: one in ten thousand is above 4
    for transform in (train_transform(AugmentSettings(), 32), teacher_train_transform(32, 0.5)):
        tensor = transform(image)
        assert tensor.shape == (3, 32, 32)
        assert tensor.dtype == torch.float32
        assert tensor.abs().max() < 4


def test_an_augmentation_that_timm_does_not_know_is_one_clear_line():
    check_augmentation(AugmentSettings())
    check_augmentation(AugmentSettings(auto_augment=None))
    with pytest.raises(UsageError, match=r"auto_augment.*'rnd-m9'.*rand-m9-mstd0\.5-inc1") as error:
        check_augmentation(AugmentSettings(auto_augment="rnd-m9"))
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"config teacher_training\.augment\.auto_augment: timm does not"):
        check_augmentation(AugmentSettings(auto_augment="rnd-m9"), "teacher_training")


@pytest.mark.parametrize(("size", "images"), [(16, 256), (32, 256), (64, 128), (128, 32), (224, 10), (384, 8)])
def test_large_images_are_evaluated_few_at_a_time_on_a_cpu(size, images, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert eval_batch_size(size) == images
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert eval_batch_size(size) == 256


def test_evaluation_sees_every_image_in_order(digits):
    batches = list(eval_loader(digits.val, 16, batch_size=50))
    assert [len(images) for images, _ in batches] == [50, 50, 44]
    assert torch.equal(batches[1][0][0], eval_tensor(digits.val[50][0], 16))
    assert np.array_equal(torch.cat([labels for _, labels in batches]), digits.val.labels)
