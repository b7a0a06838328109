"""How large networks see the images of a dataset: as large as they are, and as this machine can take."""

from __future__ import annotations

import numpy as np

from tvt_ray.data.looking import ImageFacts, look_at
from tvt_ray.data.splits import Dataset

IMAGE_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # pixels; larger ones cost more than they bring
LARGEST_WITHOUT_GPU = 64
NUM_LOOKED_AT = 500  # images whose headers are read


def image_size(side: int, has_gpu: bool) -> int:
    """The largest of IMAGE_SIZES that images of this shorter side need not be enlarged to; 64 at most without a GPU."""
    largest = min(side, IMAGE_SIZES[-1] if has_gpu else LARGEST_WITHOUT_GPU)
    return max((size for size in IMAGE_SIZES if size <= largest), default=IMAGE_SIZES[0])


def header_facts(data: Dataset) -> list[ImageFacts]:
    """Of training images, evenly spread, whichever of them validate."""
    places = data.train.indices
    if data.val_is_carved:
        places = np.sort(np.concatenate([places, data.val.indices]))
    spread = np.unique(np.linspace(0, len(places) - 1, min(len(places), NUM_LOOKED_AT)).astype(int))
    return [seen.facts for seen in look_at(data.train.source, places[spread].tolist())]


def median_side(facts: list[ImageFacts]) -> int:
    """Of the shorter side, in pixels: the centre square is what networks see."""
    return int(np.median([min(each.size) for each in facts]))
