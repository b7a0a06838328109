import numpy as np
import pytest
import torch
from PIL import Image

from tvt_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tvt_ray.data.transforms import (
    AugmentSettings,
    check_augmentation,
    eval_tensor,
    teacher_train_transform,
    train_transform,
)
from tvt_ray.errors import UsageError


def test_evaluation_takes_the_centre_square_and_imagenet_normalisation():
    array = np.zeros((20, 40, 3), np.uint8)
    array[:, 10:30] = (255, 0, 51)
    tensor = eval_tensor(Image.fromarray(array), 8)
    wanted = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(tensor, wanted[:, None, None].expand(3, 8, 8), atol=1e-5)


def test_training_transforms_give_the_same_kind_of_tensor(digits):
    image = digits.train[0][0]
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
