"""Splits to batches of tensors, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import eval_tensor


class TransformedSplit(Dataset[tuple[Tensor, int]]):
    """A split whose images go through `transform`."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.split[index]
        return self.transform(image), label


def eval_loader(
    split: Split, image_size: int, batch_size: int = 256, num_workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """In order, without augmentation."""
    data = TransformedSplit(split, lambda image: eval_tensor(image, image_size))
    return DataLoader(data, batch_size, num_workers=num_workers)  # type: ignore[arg-type]


@torch.inference_mode()
def accuracy(
    predict: Callable[[Tensor], Tensor], loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"
) -> float:
    """Top-1 accuracy in percent. `predict` gives logits (B, classes) for normalised images (B, 3, H, W)."""
    correct = total = 0
    for images, labels in loader:
        correct += int((predict(images.to(device)).argmax(1).cpu() == labels).sum())
        total += len(labels)
    return 100 * correct / total
