"""DisWOT (Dong et al. 2023, https://arxiv.org/abs/2303.15678): a student's fit to a teacher, before training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tvt_ray.proxies.passes import cross_entropy, gradients, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


def diswot(student: Student, probe: Probe) -> float:
    """`diswot`: minus the distance of semantic and of sample relations to the teacher's; higher is better, at most 0.

    Semantic: the classifier's cross-entropy gradient (classes, channels) as inner products of classes. Relation: the
    last map as inner products of images. Rows of both matrices have length 1; distances are mean squared differences.
    One forward and one backward pass. The paper compares channels of the classifier's gradient through a random
    projection, since student and teacher differ in width; classes need none, so ours is no function of its draw. It
    also draws both networks' weights anew; ours takes the teacher as trained, which is the one that will teach.
    """
    head = student.head.weight
    semantic = _distance(
        gradients(cross_entropy(student, probe.images, probe.labels), [head])[0],
        _teacher_head_gradient(probe),
    )
    last = student.num_blocks - 1
    with torch.no_grad():
        features = student.feature_maps(probe.images, (last,))[last]
    spatial = _distance(features.flatten(1), probe.teacher_maps[-1].flatten(1))
    return -sum(numbers([semantic, spatial]))


def _teacher_head_gradient(probe: Probe) -> Tensor:
    """Of a Linear on the globally pooled last stage: (softmax - one-hot)^T pooled / B, (classes, channels)."""
    assert probe.teacher_logits is not None  # the table says that this proxy needs a teacher
    predicted = probe.teacher_logits.softmax(1)
    error = predicted - F.one_hot(probe.labels, predicted.shape[1])
    return error.mT @ probe.teacher_maps[-1].mean((2, 3)) / len(probe.labels)


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of two sets of vectors (N, any width), by the inner products within each."""
    gram, other = (F.normalize(rows @ rows.mT) for rows in (ours, theirs))
    return (gram - other).square().mean()
