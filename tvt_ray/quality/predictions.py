"""What a classifier makes of every image of a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tvt_ray.data.batches import eval_loader
from tvt_ray.data.splits import Split
from tvt_ray.errors import RunError


@torch.inference_mode()
def probabilities_of(
    model: nn.Module, split: Split, image_size: int, on_batch: Callable[[int], None] = lambda images: None
) -> NDArray[np.float64]:
    """Softmax of the logits of each image, in the split's order: (n, classes). Runs where the model's weights are.

    `on_batch` hears how many images each batch had. Raises RunError for a model whose logits are no numbers.
    """
    device, found = next(model.parameters()).device, []
    for images, _ in eval_loader(split, image_size):
        found.append(model(images.to(device)).double().softmax(1).cpu().numpy())
        on_batch(len(images))
    probabilities: NDArray[np.float64] = np.concatenate(found)
    if not np.isfinite(probabilities).all():
        raise RunError("the student's outputs are not finite numbers: its weights are broken, train it anew")
    return probabilities
