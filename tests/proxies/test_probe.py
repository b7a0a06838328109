import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tvt_ray.errors import UsageError
from tvt_ray.proxies.passes import inputs_of
from tvt_ray.proxies.probe import ProbeSettings, build_probe, select_balanced


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


def test_student_and_teacher_see_the_same_images_at_their_own_sizes(digits, teacher):
    with inputs_of([teacher]) as seen:
        probe = build_probe(digits.train, ProbeSettings(num_images=4), 2 * teacher.image_size, teacher)
    assert probe.images.shape == (4, 3, 2 * teacher.image_size, 2 * teacher.image_size)
    assert seen[0].shape == (4, 3, teacher.image_size, teacher.image_size)
    assert torch.allclose(F.avg_pool2d(probe.images, 2), seen[0], atol=0.35)


def test_the_teacher_is_run_in_evaluation_mode(digits, teacher):
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher.train()
    with inputs_of([teacher]) as seen:
        probe = build_probe(digits.train, ProbeSettings(num_images=6), 32, teacher)
    assert not teacher.training
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    with torch.no_grad():
        alone = teacher(seen[0][:1])[1][-1]
    assert torch.allclose(probe.teacher_maps[-1][:1], alone, atol=1e-5)


def test_without_a_teacher_the_probe_is_images_and_labels(digits, teacher):
    settings = ProbeSettings(num_images=6)
    alone, both = build_probe(digits.train, settings, 32, None), build_probe(digits.train, settings, 32, teacher)
    assert torch.equal(alone.images, both.images)
    assert torch.equal(alone.labels, both.labels)
    assert alone.teacher_maps == ()
    assert alone.teacher_logits is None
    assert alone.to("cpu").teacher_logits is None


def test_chunks_are_the_probe_in_order_and_in_its_precision(probe):
    cut = dataclasses.replace(probe, chunk=4, precision=torch.bfloat16)
    images, maps = zip(*cut.chunks(), strict=True)
    assert [len(part) for part in images] == [4, 4, 2]
    assert torch.equal(torch.cat(images), probe.images.to(torch.bfloat16))
    assert torch.equal(torch.cat(maps), probe.teacher_maps[-1])


def test_labels_are_those_of_the_images(digits):
    probe = build_probe(digits.train, ProbeSettings(num_images=len(digits.train)), 8, None)
    assert torch.bincount(probe.labels).tolist() == np.bincount(digits.train.labels).tolist()
