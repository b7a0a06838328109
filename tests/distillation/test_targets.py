"""What the cross-entropy compares with."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tvt_ray.distillation.cohort import Targets
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.training.loaders import seed_everything

LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])


@pytest.fixture
def batch():
    seed_everything("a batch")
    return torch.randn(7, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2, 0])


def test_with_everything_off_labels_are_the_targets(batch):
    images, targets = Targets(DistillSettings(), LABELS, 3)(*batch)
    assert images is batch[0]
    assert targets is batch[1]


def test_smoothing_is_that_of_pytorchs_cross_entropy(batch):
    _, targets = Targets(DistillSettings(smoothing=0.1), LABELS, 3)(*batch)
    logits = torch.randn(7, 3)
    expected = F.cross_entropy(logits, batch[1], label_smoothing=0.1)
    torch.testing.assert_close(F.cross_entropy(logits, targets), expected)


def test_balanced_weights_make_every_class_count_alike(batch):
    targets = Targets(DistillSettings(class_weights="balanced"), LABELS, 3)
    _, shares = targets(torch.zeros(10, 3, 8, 8), torch.from_numpy(LABELS))
    assert shares.sum(0).tolist() == pytest.approx([10 / 3] * 3)
    logits = torch.randn(7, 3)
    _, shares = targets(*batch)
    weighted = F.cross_entropy(logits, batch[1], weight=targets.class_weights, reduction="sum") / 7
    torch.testing.assert_close(F.cross_entropy(logits, shares), weighted)


def test_a_class_without_images_weighs_nothing():
    assert Targets(DistillSettings(class_weights="balanced"), LABELS, 4).class_weights.tolist() == pytest.approx(
        [10 / 18, 10 / 6, 10 / 6, 0]
    )


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixed_images_have_mixed_targets(batch, option):
    images, labels = batch
    mixed, shares = Targets(DistillSettings(**{option: 1.0}), LABELS, 3)(images.clone(), labels)
    assert mixed.shape == images.shape
    assert torch.equal(mixed[6], images[6])  # the odd one
    assert shares[6].tolist() == [1, 0, 0]
    assert torch.allclose(shares.sum(1), torch.ones(7))
    partner = F.one_hot(labels[:6].flip(0), 3)[0]
    share = shares[0, 0].item()
    torch.testing.assert_close(shares[0], share * F.one_hot(labels, 3)[0] + (1 - share) * partner)
    if option == "mixup":
        torch.testing.assert_close(mixed[0], share * images[0] + (1 - share) * images[5])
    else:
        assert ((mixed[0] == images[0]) | (mixed[0] == images[5])).all()


def test_mixing_leaves_the_batch_that_was_given_as_it_is(batch):
    before = batch[0].clone()
    Targets(DistillSettings(mixup=1.0), LABELS, 3)(*batch)
    assert torch.equal(batch[0], before)
