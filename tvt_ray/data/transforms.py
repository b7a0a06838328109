"""From PIL images to batches of the tensors that networks see, without and with augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tvt_ray.data.splits import Split
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line
from tvt_ray.strict import Strict
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.pieces import IMAGENET_MEAN as IMAGENET_MEAN
from tvt_ray.vits.pieces import IMAGENET_STD as IMAGENET_STD

SMALLEST_EVAL_BATCH, LARGEST_EVAL_BATCH = 8, 256
EVAL_PIXELS = 2**19  # of a batch that is evaluated on a CPU


def normalize(images: Tensor) -> Tensor:
    """(B, 3, H, W) in 0 to 1 -> the same with ImageNet's mean and standard deviation per channel taken out."""
    mean, std = (
        torch.tensor(each, dtype=images.dtype, device=images.device)[:, None, None]
        for each in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (images - mean) / std


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear (B, 3, H, W) -> (B, 3, size, size), align_corners=False, low-pass filtered where it shrinks."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    shrinks = min(height, width) > size
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)


class AugmentSettings(Strict):
    """Locality Guidance's augmentation by default; timm's `create_transform` does the work and names the options."""

    scale: tuple[float, float] = (0.08, 1.0)  # least and largest share of the area that a random crop keeps
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # least and largest width / height of a random crop
    hflip: float = Field(0.5, ge=0, le=1)  # probability of a mirror image
    vflip: float = Field(0.0, ge=0, le=1)  # probability of an image upside down
    # strength for brightness, contrast and saturation, beside auto_augment too; None: off
    color_jitter: float | None = Field(None, ge=0)
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"  # a policy by timm's name for it; None: off
    random_erasing: float = Field(0.25, ge=0, le=1)  # probability that a rectangle is erased
    re_mode: Literal["pixel", "rand", "const"] = "pixel"  # erased with noise, one random colour, or black


def square_tensor(image: Image.Image) -> Tensor:
    """The largest centred square, as (3, S, S) in 0 to 1."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    array = np.array(image.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)


def eval_tensor(image: Image.Image, size: int) -> Tensor:
    """Centre square, resized, ImageNet-normalised: (3, size, size)."""
    return normalize(resize(square_tensor(image)[None], size))[0]


def train_transform(settings: AugmentSettings, size: int) -> Callable[[Image.Image], Tensor]:
    """timm's training pipeline: random resized crop, flip, RandAugment, normalisation, random erasing."""
    ensure_torchvision()
    from timm.data.transforms_factory import transforms_imagenet_train

    transform: Callable[[Image.Image], Tensor] = transforms_imagenet_train(
        size,
        scale=settings.scale,
        ratio=settings.ratio,
        hflip=settings.hflip,
        vflip=settings.vflip,
        color_jitter=settings.color_jitter,
        force_color_jitter=settings.color_jitter is not None,
        auto_augment=settings.auto_augment,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        re_prob=settings.random_erasing,
        re_mode=settings.re_mode,
    )
    return transform


def check_augmentation(settings: AugmentSettings, section: str = "distill") -> None:
    """Raises UsageError for an `auto_augment` that timm does not know; it says so by exceptions of many kinds.

    `section`: of the config, whose `augment` this is.
    """
    try:
        train_transform(settings, 32)
    except Exception as error:
        raise UsageError(
            f"config {section}.augment.auto_augment: timm does not take {settings.auto_augment!r} "
            f"({first_line(error)}); it is written as in rand-m9-mstd0.5-inc1, original-mstd0.5 or augmix-m5-w4-d2"
        ) from None


def teacher_train_transform(size: int, hflip: float) -> Callable[[Image.Image], Tensor]:
    """The CIFAR recipe at any size: padded by an eighth (4 of 32 pixels), cropped at random, flipped, normalised."""
    ensure_torchvision()
    from torchvision.transforms import v2

    augment = v2.Compose([v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip(hflip)])

    def transform(image: Image.Image) -> Tensor:
        tensor: Tensor = augment(resize(square_tensor(image)[None], size)[0])
        return normalize(tensor)

    return transform


class TransformedSplit(Dataset[tuple[Tensor, int]]):
    """A split whose images go through `transform`."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.split[index]
        return self.transform(image), label


def eval_batch_size(image_size: int) -> int:
    """On CPUs fewer images of more pixels, whose activations stay in the caches: a teacher at 224 pixels took four
    times as long for 256 at a time as for 16.
    """
    fitting = LARGEST_EVAL_BATCH if torch.cuda.is_available() else EVAL_PIXELS // image_size**2
    return min(max(fitting, SMALLEST_EVAL_BATCH), LARGEST_EVAL_BATCH)


def eval_loader(
    split: Split, image_size: int, batch_size: int | None = None, num_workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """In order, without augmentation. `batch_size`: images of one; None: as many as are quick here."""
    batch_size = batch_size or eval_batch_size(image_size)
    data = TransformedSplit(split, lambda image: eval_tensor(image, image_size))
    return DataLoader(data, batch_size, num_workers=num_workers)  # type: ignore[arg-type]
