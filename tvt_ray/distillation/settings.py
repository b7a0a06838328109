"""Locality Guidance's recipe as settings, and what timm's training script offers beside it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.losses import LossSettings
from tvt_ray.storage.locations import as_location
from tvt_ray.strict import Seed, Strict
from tvt_ray.teachers.timm_cnn import PREFIX
from tvt_ray.training.learner import Weights
from tvt_ray.training.loaders import Sampling
from tvt_ray.training.pace import Amp
from tvt_ray.vits.starts import STARTS, Positions

LearnFrom: TypeAlias = Literal["train", "train and val"]


class DistillSettings(Strict):
    """Locality Guidance's recipe by default (Li et al. 2022, https://arxiv.org/abs/2207.10026)."""

    later = frozenset(
        {"learn_from", "init", "start", "positions", "stem", "stem_lr", "stem_frozen_epochs", "stem_frozen_stages"}
        | {"num_views"}
    )

    epochs: PositiveInt = 300  # passes over the training images
    batch_size: PositiveInt = 128  # images in a batch, over all workers
    grad_accum_steps: PositiveInt = 1  # batches whose gradients are added up for one step of the optimiser
    # train and val: the images that validate are learned from too, where nothing is left to be chosen by them; such a
    # student has no validation accuracy
    learn_from: LearnFrom = "train"
    # a larger ViT whose weights students begin with: timm:NAME, a file, a student's folder; None: drawn weights
    init: str | None = None
    # how attention begins where its weights are drawn: normal, as published; mimetic, impulse, conditioned: by a
    # closed form (docs/inherit.md)
    start: str = "normal"
    positions: Positions = "learned"  # vectors of patches: learned, or sine: fixed sines and cosines
    # how stages of a ConvNet in students' stems begin: with the teacher's weights, or drawn. A teacher that is another
    # network has none to give, and is refused
    stem: Literal["inherited", "drawn"] = "inherited"
    stem_lr: float = Field(0.1, ge=0)  # times lr: the learning rate of inherited stages
    stem_frozen_epochs: NonNegativeInt = 0  # in which inherited stages stay as they are
    stem_frozen_stages: NonNegativeInt = 0  # inherited stages, from the first on, that stay as they are all along
    # different augmentations of each image, which come again after so many epochs; None: each epoch has its own
    num_views: PositiveInt | None = None
    lr: float = Field(5e-4, gt=0)  # learning rate after warm-up
    min_lr: float = Field(5e-6, ge=0)  # learning rate at the end
    warmup_epochs: NonNegativeInt = 20  # in which the learning rate rises; at most half of the epochs are
    warmup_lr: float = Field(5e-7, ge=0)  # learning rate at the beginning of warm-up
    weight_decay: float = Field(0.05, ge=0)  # not on biases, norms, class token and positions
    clip_grad: float | None = Field(None, gt=0)  # largest norm of all gradients together; None: no limit
    zero_head: bool = False  # the classifier begins at zero, as the published recipe has it
    loss: LossSettings = LossSettings()
    # whether terms that follow the teacher are on; auto: where it beats the largest class by two standard errors
    guided: Literal["auto", "always", "never"] = "auto"
    augment: AugmentSettings = AugmentSettings()
    mixup: float = Field(0.0, ge=0)  # alpha of mixup; 0: off. With cutmix on too, each batch gets one of them
    cutmix: float = Field(0.0, ge=0)  # alpha of CutMix; 0: off
    smoothing: float = Field(0.0, ge=0, lt=1)  # label smoothing
    class_weights: Literal["none", "balanced"] = "none"  # balanced: each class counts alike in the cross-entropy
    sampling: Sampling = "uniform"  # balanced: each class is drawn alike
    # of a moving average of the weights, which is kept beside them; None: there is none
    ema_decay: float | None = Field(None, gt=0, lt=1)
    # which are kept; auto: best where 2,500 images or more validate, else ema where there is one, else last
    weights: Weights = "auto"
    amp: Amp = "off"  # mixed precision; auto: the faster of float32 and what the device is made for
    channels_last: bool = False  # memory layout of images and convolutions
    compile: bool = False  # train through torch.compile
    seed: Seed = 0  # of first weights, order of images and augmentation

    @field_validator("init")
    @classmethod
    def _placed(cls, init: str | None) -> str | None:
        if init is None or init.startswith(PREFIX):
            return init
        if not init:
            raise ValueError("init is timm:NAME, a file of a ViT's weights, or a student's folder; null: none")
        return str(as_location(init))

    @field_validator("amp", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        """YAML reads `off` as false: `--set distill.amp=off` was refused."""
        return "off" if value is False else value

    @field_validator("start")
    @classmethod
    def _known_start(cls, start: str) -> str:
        if start not in STARTS:
            raise ValueError(f"unknown start {start!r}; choices: {', '.join(STARTS)}")
        return start

    @model_validator(mode="after")
    def _average_is_kept(self) -> DistillSettings:
        if self.weights == "ema" and self.ema_decay is None:
            raise ValueError("weights: ema needs ema_decay, such as 0.99")
        return self
