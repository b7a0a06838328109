import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tvt_ray.data.batches import accuracy, eval_loader
from tvt_ray.data.transforms import eval_tensor


def test_evaluation_sees_every_image_in_order(digits):
    batches = list(eval_loader(digits.val, 16, batch_size=50))
    assert [len(images) for images, _ in batches] == [50, 50, 44]
    assert torch.equal(batches[1][0][0], eval_tensor(digits.val[50][0], 16))
    assert np.array_equal(torch.cat([labels for _, labels in batches]), digits.val.labels)


def test_accuracy_is_in_percent_of_all_images(digits):
    loader = eval_loader(digits.val, 8, batch_size=50)
    assert accuracy(lambda images: F.one_hot(torch.full((len(images),), 3), 10), loader) == pytest.approx(
        100 * np.mean(digits.val.labels == 3)
    )
