"""Would augmenting a batch at once be faster than one image after the other? On this machine's CPU.

python benchmarks/augment.py [--sizes 32 64 96 224] [--num-images 64] [--rounds 5]

A random crop, a flip and normalisation of decoded images, in turn: by the training pipeline, image by image
(tvt_ray/data/transforms.py), and for all of a batch in one `grid_sample`, each image with a crop of its own.
RandAugment is left out: its operations differ from image to image, so there is no batch of them.

Ends with one JSON object, by size: milliseconds an image of `one_by_one` and of `batch`, their `ratio`, and those of
the `whole` pipeline of the published recipe, RandAugment and erasing included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tvt_ray.data.decoded import MARGIN
from tvt_ray.data.preprocess import normalize
from tvt_ray.data.transforms import AugmentSettings, train_transform

PLAIN = AugmentSettings(scale=(0.35, 1.0), auto_augment=None, random_erasing=0)
WHOLE = AugmentSettings(scale=(0.35, 1.0), color_jitter=0.3)


def in_a_batch(pixels: Tensor, size: int, settings: AugmentSettings = PLAIN) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 3, size, size), each image cropped, and flipped or not, by chance of its own."""
    count = len(pixels)
    share = torch.empty(count).uniform_(*settings.scale).sqrt()
    corner = (torch.rand(count, 2) * 2 - 1) * (1 - share)[:, None]
    flip = torch.where(torch.rand(count) < settings.hflip, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = share * flip, share, corner
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    return normalize(F.grid_sample(pixels.float() / 255, grid, mode="bicubic", align_corners=False))


def best_ms(ways: Sequence[Callable[[], object]], rounds: int, count: int) -> list[float]:
    """The best of some rounds of each, in turn: milliseconds an image."""
    taken = [[_seconds(way) for way in ways] for _ in range(rounds)]
    return [1000 * min(times) / count for times in zip(*taken, strict=True)]


def _seconds(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def compare(size: int, count: int, rounds: int) -> dict[str, float]:
    """One size. The images are a little larger, as they are kept when they are decoded."""
    side = round(size * MARGIN)
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    images, batch = [Image.fromarray(each) for each in pixels], torch.from_numpy(pixels).permute(0, 3, 1, 2)
    plain, whole = (train_transform(settings, size) for settings in (PLAIN, WHOLE))
    one, many, all_of_it = best_ms(
        [
            lambda: torch.stack([plain(image) for image in images]),
            lambda: in_a_batch(batch, size),
            lambda: torch.stack([whole(image) for image in images]),
        ],
        rounds,
        count,
    )
    return {
        "one_by_one": round(one, 3),
        "batch": round(many, 3),
        "ratio": round(one / many, 2),
        "whole": round(all_of_it, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 96, 224], metavar="PIXELS")
    parser.add_argument("--num-images", type=int, default=64, metavar="N", help="in a batch")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of which the best counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(json.dumps({str(size): compare(size, args.num_images, args.rounds) for size in args.sizes}))


if __name__ == "__main__":
    main()
