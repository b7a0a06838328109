"""Training batches: what is in them depends on seed, epoch and image alone."""

import itertools
import random

import numpy as np
import pytest
import torch

from tvt_ray.data.transforms import AugmentSettings, train_transform
from tvt_ray.training.loaders import (
    AugmentedSplit,
    ShuffledBatches,
    generators_as_they_were,
    seed_torch,
    train_loader,
)

TRANSFORM = train_transform(AugmentSettings(color_jitter=0.3), 32)


@pytest.fixture
def split(digits):
    return digits.train.take(np.arange(23))


def places(batches):
    return [[place for _, place in batch] for batch in batches]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(split):
    batches = ShuffledBatches(split.labels, 5, seed=3)
    batches.set_epoch(4)
    fourth = places(batches)
    assert sorted(itertools.chain(*fourth)) == list(range(23))
    assert [len(batch) for batch in fourth] == batches.sizes() == [5, 5, 5, 5, 3]
    assert places(batches) == fourth
    batches.set_epoch(5)
    assert places(batches) != fourth


def test_an_image_is_not_left_alone_in_a_batch():
    assert ShuffledBatches(np.zeros(21, np.int64), 5, seed=0).sizes() == [5, 5, 5, 6]
    assert ShuffledBatches(np.zeros(1, np.int64), 5, seed=0).sizes() == [1]


def test_workers_share_the_batches_that_one_would_have(split):
    alone = ShuffledBatches(split.labels, 4, seed=0)
    shares = [ShuffledBatches(split.labels, 4, 0, rank, 3) for rank in range(3)]
    assert alone.sizes() == shares[0].sizes() == [4, 4, 4, 4, 4, 3]
    for parts, whole in zip(zip(*map(places, shares), strict=True), places(alone), strict=True):
        assert sorted(itertools.chain(*parts)) == sorted(whole)
        assert all(parts)


def test_a_last_batch_that_cannot_give_every_worker_an_image_joins_the_one_before():
    shares = [ShuffledBatches(np.zeros(10, np.int64), 4, 0, rank, 3) for rank in range(3)]
    assert shares[0].sizes() == [4, 6]
    assert [len(batch) for share in shares for batch in share] == [2, 2, 1, 2, 1, 2]


def test_pixels_depend_on_seed_epoch_and_image_and_on_nothing_else(split):
    subject = AugmentedSplit(split, TRANSFORM, seed=1)
    images, labels = subject.__getitems__([(0, 3), (2, 7)])
    torch.manual_seed(9)
    random.seed(9)
    again, _ = subject.__getitems__([(2, 7), (0, 3)])
    assert torch.equal(images, again.flip(0))
    assert labels.tolist() == split.labels[[3, 7]].tolist()
    for other in (subject[1, 3], AugmentedSplit(split, TRANSFORM, seed=2)[0, 3]):
        assert not torch.equal(other[0][0], images[0])


def test_loading_does_not_move_the_generators_that_training_draws_from(split):
    subject = AugmentedSplit(split, TRANSFORM, seed=1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(4)
    _ = subject[0, 0]
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(4)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


def test_seeding_draws_as_torch_would_and_asks_for_no_stack_trace(monkeypatch):
    torch.manual_seed(2**61 + 5)
    drawn = torch.rand(3)
    monkeypatch.setattr("traceback.format_stack", lambda *args: pytest.fail("it took a stack trace"))
    seed_torch(2**61 + 5)
    assert torch.equal(torch.rand(3), drawn)


def test_generators_are_as_they_were_after_an_error_too(split):
    random.seed(4)
    with pytest.raises(IndexError), generators_as_they_were():
        random.seed(5) or split[99]
    drawn = random.random()
    random.seed(4)
    assert drawn == random.random()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_goes_from_epoch_to_epoch(split, num_workers):
    batches = ShuffledBatches(split.labels, 6, seed=0)
    loader, seen = train_loader(split, TRANSFORM, batches, num_workers), []
    for epoch in range(2):
        batches.set_epoch(epoch)
        seen.append([images for images, _ in loader])
    expected = AugmentedSplit(split, TRANSFORM, 0)
    batches.set_epoch(1)
    assert all(torch.equal(ours, expected.__getitems__(keys)[0]) for ours, keys in zip(seen[1], batches, strict=True))
    assert [len(images) for images in seen[0]] == [6, 6, 6, 5]
    assert not loader.pin_memory
    assert train_loader(split, TRANSFORM, batches, num_workers, pinned=True).pin_memory


def test_balanced_draws_favour_no_class():
    labels = np.array([0] * 90 + [1] * 10)
    batches = ShuffledBatches(labels, 10, seed=0, sampling="balanced")
    drawn = np.concatenate([labels[batches.order(epoch)] for epoch in range(40)])
    assert len(drawn) == 4000
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)
