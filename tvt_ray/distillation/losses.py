"""The distillation loss: Locality Guidance (Li et al. 2022, https://arxiv.org/abs/2207.10026), and logits on request.

Shape suffixes: B = images, C = channels, H, W = map axes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from tvt_ray.strict import Strict
from tvt_ray.training.learner import Outputs
from tvt_ray.vits.student import Student


class LossSettings(Strict):
    """The loss is a weighted sum of rows of LOSSES; a weight of 0 leaves a term out."""

    # of the terms that are added up, rows of LOSSES; 0: a term is left out
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default={"cross_entropy": 1.0, "guidance": 2.5})
    # three blocks that guidance compares; None: first, middle (depth // 2) and last
    student_blocks: tuple[int, int, int] | None = None
    temperature: float = Field(4.0, gt=0)  # of the term logits
    # guidance counts for so many times the cross-entropy at most; None: no limit
    guidance_limit: float | None = Field(None, gt=0)

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: dict[str, float]) -> dict[str, float]:
        for name in weights:
            if name not in LOSSES:
                raise ValueError(f"unknown loss {name!r}; choices: {', '.join(LOSSES)}")
        if not any(weights.values()):
            raise ValueError("all weights are 0, so that nothing would be learned")
        return weights

    @property
    def follow_teacher(self) -> bool:
        """Whether any term that is on compares with the teacher."""
        return any(name not in ALONE for name in self.terms)

    def alone(self) -> LossSettings:
        """Without the terms that compare with the teacher."""
        weights = {name: weight for name, weight in self.terms.items() if name in ALONE} or {"cross_entropy": 1.0}
        return self.model_copy(update={"weights": weights})  # which `with_` would merge with those that are

    @property
    def terms(self) -> dict[str, float]:
        """The terms that are on, and their weights."""
        return {name: weight for name, weight in self.weights.items() if weight}


def guided_blocks(depth: int, settings: LossSettings) -> tuple[int, int, int]:
    """The three student blocks that are compared with teacher stages 0, 1, 2.

    The published recipe names blocks 0, 6 and 11 of 12; other depths take the same relative places. Raises ValueError
    when the settings name a block that a student of this depth lacks.
    """
    if depth == 0:
        raise ValueError("loss.weights.guidance compares blocks, of which this student has none; 0 leaves it out")
    if settings.student_blocks is None:
        return 0, depth // 2, depth - 1
    if not all(0 <= block < depth for block in settings.student_blocks):
        raise ValueError(
            f"loss.student_blocks {list(settings.student_blocks)}: this student has blocks 0 to {depth - 1}"
        )
    return settings.student_blocks


def distance(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two maps (B, C, H, W), both bilinearly brought to the larger size per axis."""
    size = tuple(max(a, b) for a, b in zip(projected.shape[-2:], teacher.shape[-2:], strict=True))
    projected, teacher = (
        F.interpolate(features, size, mode="bilinear", align_corners=False) if features.shape[-2:] != size else features
        for features in (projected, teacher)
    )
    return F.mse_loss(projected, teacher)


class GuidedStudent(nn.Module):
    """A student and the 1x1 projections that serve the loss alone; only `student` is exported."""

    def __init__(
        self, student: Student, teacher_channels: Sequence[int], settings: LossSettings, teacher_features: int = 0
    ) -> None:
        """`teacher_channels`: of its stage maps. `teacher_features`: channels that its classifier reads."""
        super().__init__()
        self.student, self.settings = student, settings
        guided = "guidance" in settings.terms
        self.blocks = guided_blocks(student.num_blocks, settings) if guided else ()
        widths = student.block_widths
        self.projections = nn.ModuleList(
            nn.Conv2d(widths[block], channels, 1)
            for block, channels in zip(self.blocks, teacher_channels, strict=False)
        )

        alike = "features" in settings.terms
        self.feature_projection = nn.Linear(student.head.in_features, teacher_features) if alike else None

    def forward(self, images: Tensor) -> Outputs:
        """(B, 3, H, W) -> logits (B, classes), and the three maps and the features, projected to the teacher's."""
        logits, maps, features = self.student.logits_maps_features(images, self.blocks)
        pairs = zip(self.projections, self.blocks, strict=True)
        alike = None if self.feature_projection is None else self.feature_projection(features)
        return Outputs(logits, tuple(projection(maps[block]) for projection, block in pairs), alike)


def cross_entropy(student: Outputs, teacher: Outputs, labels: Tensor, settings: LossSettings) -> Tensor:
    """Of the student's logits with the labels (B,), or with the shares of classes (B, classes)."""
    return F.cross_entropy(student[0], labels)


def guidance(student: Outputs, teacher: Outputs, labels: Tensor, settings: LossSettings) -> Tensor:
    """Locality Guidance: the three pairs' mean squared differences, added; the student's maps are projected ones."""
    return torch.stack([distance(ours, theirs) for ours, theirs in zip(student[1], teacher[1], strict=True)]).sum()


def logits(student: Outputs, teacher: Outputs, labels: Tensor, settings: LossSettings) -> Tensor:
    """Hinton et al. 2015 (https://arxiv.org/abs/1503.02531): KL of softened predictions (B, classes), times T^2."""
    temperature = settings.temperature
    teacher_log, student_log = (F.log_softmax(each[0] / temperature, 1) for each in (teacher, student))
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * temperature**2


def features(student: Outputs, teacher: Outputs, labels: Tensor, settings: LossSettings) -> Tensor:
    """1 - cosine of what the two classifiers read of an image, (B, C); the student's is projected, as in FitNets
    (Romero et al. 2015, https://arxiv.org/abs/1412.6550), there by squared differences.
    """
    assert student.features is not None
    assert teacher.features is not None
    return 1 - F.cosine_similarity(student.features, teacher.features, dim=1).mean()


# name -> a term of the loss, from what the student gives, what the teacher gives, the labels and the settings
LOSSES: dict[str, Callable[[Outputs, Outputs, Tensor, LossSettings], Tensor]] = {
    "cross_entropy": cross_entropy,
    "guidance": guidance,
    "logits": logits,
    "features": features,
}

ALONE = frozenset({"cross_entropy"})  # rows that do without a teacher


def distillation_loss(student: Outputs, teacher: Outputs, labels: Tensor, settings: LossSettings) -> dict[str, Tensor]:
    """The terms that are on, unweighted, and `loss`, their weighted sum. Labels: (B,) int64, or (B, classes) shares."""
    terms = {name: LOSSES[name](student, teacher, labels, settings) for name in settings.terms}
    weighted = {name: weight * terms[name] for name, weight in settings.terms.items()}
    if settings.guidance_limit is not None and {"guidance", "cross_entropy"} <= weighted.keys():
        weighted["guidance"] = _limited(weighted["guidance"], settings.guidance_limit * weighted["cross_entropy"])
    return {**terms, "loss": functools.reduce(torch.add, weighted.values())}


def _limited(value: Tensor, limit: Tensor) -> Tensor:
    """Scaled down to the limit where it is above; the scale is no part of the gradient."""
    return value * (limit / value).detach().clamp(max=1)
