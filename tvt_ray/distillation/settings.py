"""Locality Guidance's recipe as settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.losses import LossSettings


class DistillSettings(BaseModel):
    """Locality Guidance's recipe by default (Li et al. 2022, https://arxiv.org/abs/2207.10026)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt = 300
    batch_size: PositiveInt = 128  # over all workers
    lr: float = Field(5e-4, gt=0)
    min_lr: float = Field(5e-6, ge=0)
    warmup_epochs: NonNegativeInt = 20  # at most half of the epochs are warm-up
    warmup_lr: float = Field(5e-7, ge=0)
    weight_decay: float = Field(0.05, ge=0)  # not on biases, norms, class token and positions
    loss: LossSettings = LossSettings()
    augment: AugmentSettings = AugmentSettings()
    seed: int = 0
