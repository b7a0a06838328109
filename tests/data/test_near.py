"""Images that look alike: recompressed, resized, turned, the next frame; and images that do not."""

import io

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

from tvt_ray.data.near import SIDE, near_groups, perceptual_hashes, thumbnail


def scene(seed, size=(120, 90)):
    """Smooth blobs: what photographs are like at a small scale."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))


def groups(*images):
    thumbnails = np.stack([thumbnail(np.asarray(image.convert("RGB"))) for image in images])
    return near_groups(thumbnails, [str(number) for number in range(len(images))]).tolist()


def recompressed(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


COPIES = {
    "JPEG, quality 30": lambda image: recompressed(image, 30),
    "half as large": lambda image: image.resize((60, 45)),
    "of another shape": lambda image: image.resize((90, 90)),
    **{f"turned {each.name}": (lambda image, each=each: image.transpose(each)) for each in Image.Transpose},
    "a pixel changed": lambda image: Image.fromarray(
        np.where(np.arange(90 * 120 * 3).reshape(90, 120, 3) < 9, 0, image)
    ),
    "a little brighter": lambda image: image.point(lambda value: min(value + 4, 255)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_of_one_group(how):
    others = [scene(seed) for seed in range(1, 9)]
    found = groups(scene(0), *others, COPIES[how](scene(0)))
    assert found[0] == found[-1]
    assert len(set(found)) == 9


def test_groups_are_connected_through_others():
    """Each frame is near the next, the last is not near the first."""
    first, last = np.asarray(scene(0)).astype(float), np.asarray(scene(1)).astype(float)
    frames = [Image.fromarray((first + (last - first) * step / 24).astype(np.uint8)) for step in range(25)]
    assert len(set(groups(*frames))) == 1
    assert len(set(groups(frames[0], frames[-1]))) == 2


def test_other_images_are_no_copies():
    assert len(set(groups(*(scene(seed) for seed in range(200))))) == 200


def test_the_same_shapes_in_other_colours_are_no_copies():
    image = np.asarray(scene(0))
    assert len(set(groups(scene(0), Image.fromarray(image[..., [1, 2, 0]])))) == 2


def test_empty_images_are_no_copies_but_equal_files_are():
    grey = [np.full((SIDE, SIDE, 3), level, np.uint8) for level in (100, 101, 101)]
    assert near_groups(np.stack(grey), ["a", "b", "b"]).tolist() == [0, 1, 1]


def test_hashes_are_those_of_imagehash():
    """On images of their own size; others it makes smaller by a filter of its own."""
    for seed in range(20):
        grey = scene(seed, (SIDE, SIDE)).convert("L")
        ours = perceptual_hashes(np.asarray(grey)[None].astype(float))[0]
        assert np.array_equal(ours, imagehash.phash(grey).hash)
