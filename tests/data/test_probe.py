import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tvt_ray.data import ProbeSettings, build_probe_images
from tvt_ray.data.probe import select_balanced
from tvt_ray.data.transforms import AugmentSettings, eval_tensor, teacher_train_transform, train_transform
from tvt_ray.errors import UsageError
from tvt_ray.models.preprocess import IMAGENET_MEAN, IMAGENET_STD


@pytest.mark.parametrize("num_images", [1, 9, 10, 33])
def test_probe_is_balanced_and_seeded(digits, num_images):
    chosen = select_balanced(digits.train.labels, num_images, seed=0)
    counts = np.bincount(digits.train.labels[chosen], minlength=10)
    assert counts.max() - counts.min() <= 1
    assert len(set(chosen)) == num_images
    assert np.array_equal(chosen, select_balanced(digits.train.labels, num_images, seed=0))
    assert not np.array_equal(chosen, select_balanced(digits.train.labels, num_images, seed=1))


def test_classes_that_run_out_leave_their_share_to_others():
    labels = np.array([0] * 2 + [1] * 50)
    counts = np.bincount(labels[select_balanced(labels, 12, seed=0)])
    assert counts.tolist() == [2, 10]
    with pytest.raises(UsageError, match="only 52 training images"):
        select_balanced(labels, 53, seed=0)


def test_student_and_teacher_see_the_same_images_at_their_own_sizes(digits):
    images = build_probe_images(digits.train, ProbeSettings(num_images=4), 64, 16)
    assert images.student.shape == (4, 3, 64, 64)
    assert images.teacher.shape == (4, 3, 16, 16)
    assert torch.allclose(F.avg_pool2d(images.student, 4), images.teacher, atol=0.35)


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
