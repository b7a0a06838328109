"""The distillation loss: Locality Guidance (Li et al. 2022, https://arxiv.org/abs/2207.10026), and logits on request.

Shape suffixes: B = images, C = channels, H, W = map axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tvt_ray.models.layers import Block, Student


class LossSettings(BaseModel):
    """total = cross-entropy + feature_weight x guidance + logit_weight x KL; every term that is on is added."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature_weight: float = Field(2.5, ge=0)
    student_blocks: tuple[int, int, int] | None = None  # None: first, middle (depth // 2) and last
    logit_weight: float = Field(0.0, ge=0)
    temperature: float = Field(4.0, gt=0)


def guided_blocks(depth: int, settings: LossSettings) -> tuple[int, int, int]:
    """The three student blocks that are compared with teacher stages 0, 1, 2.

    The published recipe names blocks 0, 6 and 11 of 12; other depths take the same relative places. Raises ValueError
    when the settings name a block that a student of this depth lacks.
    """
    if settings.student_blocks is None:
        return 0, depth // 2, depth - 1
    if not all(0 <= block < depth for block in settings.student_blocks):
        raise ValueError(
            f"loss.student_blocks {list(settings.student_blocks)}: this student has blocks 0 to {depth - 1}"
        )
    return settings.student_blocks


def guidance(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two maps (B, C, H, W), both bilinearly brought to the larger size per axis."""
    size = tuple(max(a, b) for a, b in zip(projected.shape[-2:], teacher.shape[-2:], strict=True))
    projected, teacher = (
        F.interpolate(features, size, mode="bilinear", align_corners=False) if features.shape[-2:] != size else features
        for features in (projected, teacher)
    )
    return F.mse_loss(projected, teacher)


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Hinton et al. 2015 (https://arxiv.org/abs/1503.02531): KL of softened predictions (B, classes), times T^2."""
    teacher_log, student_log = (F.log_softmax(logits / temperature, 1) for logits in (teacher, student))
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * temperature**2


class GuidedStudent(nn.Module):
    """A student and the 1x1 projections that serve the loss alone; only `student` is exported."""

    def __init__(self, student: Student, teacher_channels: Sequence[int], settings: LossSettings) -> None:
        super().__init__()
        self.student, self.settings = student, settings
        self.blocks = guided_blocks(student.num_blocks, settings) if settings.feature_weight else ()
        widths = _map_channels(student, self.blocks)
        self.projections = nn.ModuleList(
            nn.Conv2d(widths[block], channels, 1)
            for block, channels in zip(self.blocks, teacher_channels, strict=False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 3, H, W) -> logits (B, classes), and the three maps projected to the teacher's channels."""
        logits, maps = self.student.logits_and_maps(images, self.blocks)
        pairs = zip(self.projections, self.blocks, strict=True)
        return logits, tuple(projection(maps[block]) for projection, block in pairs)


def _map_channels(student: Student, blocks: Sequence[int]) -> Mapping[int, int]:
    """Channels of the blocks' maps, which PiT widens from stage to stage: read off each block's last layer."""
    widths = [module.fc2.out_features for module in student.modules() if isinstance(module, Block)]
    return {block: widths[block] for block in blocks}


def distillation_loss(
    outputs: tuple[Tensor, tuple[Tensor, ...]],
    teacher_outputs: tuple[Tensor, tuple[Tensor, ...]],
    labels: Tensor,
    settings: LossSettings,
) -> dict[str, Tensor]:
    """The terms that are on, unweighted, and `loss`, their weighted sum. Labels: (B,) int64."""
    (logits, projected), (teacher_logits, teacher_maps) = outputs, teacher_outputs
    terms = {"cross_entropy": F.cross_entropy(logits, labels)}
    loss = terms["cross_entropy"]
    if settings.feature_weight:
        pairs = zip(projected, teacher_maps, strict=True)
        terms["guidance"] = torch.stack([guidance(ours, theirs) for ours, theirs in pairs]).sum()
        loss = loss + settings.feature_weight * terms["guidance"]
    if settings.logit_weight:
        terms["kl"] = logit_loss(logits, teacher_logits, settings.temperature)
        loss = loss + settings.logit_weight * terms["kl"]
    return {**terms, "loss": loss}
