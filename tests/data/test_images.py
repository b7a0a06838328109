"""Every source of images, holding the same ones."""

import numpy as np
import pytest

from tests.data.samples import encode, picture
from tvt_ray.data.images import ArrayImages, EncodedImages, FileImages
from tvt_ray.errors import UsageError

PICTURES = [picture(seed) for seed in range(4)]


def arrays(folder):
    return ArrayImages(np.stack([np.asarray(image) for image in PICTURES]))


def encoded(folder):
    return EncodedImages([encode(image) for image in PICTURES], ["a", "b", "c", "d"])


def files(folder):
    for i, image in enumerate(PICTURES):
        image.save(folder / f"{i}.png")
    return FileImages([folder / f"{i}.png" for i in range(len(PICTURES))])


@pytest.fixture(params=[arrays, encoded, files])
def source(request, tmp_path):
    return request.param(tmp_path)


def test_images_are_numbered(source):
    assert len(source) == 4
    assert [source[i].tobytes() for i in range(4)] == [image.tobytes() for image in PICTURES]


def test_what_travels_holds_the_chosen_images_in_their_order(source):
    carried = source.portable(np.array([2, 0]))
    assert [carried[i].tobytes() for i in range(len(carried))] == [PICTURES[i].tobytes() for i in (2, 0)]


def test_a_fingerprint_changes_with_the_images(source):
    assert source.fingerprint() == source.fingerprint()
    assert source.fingerprint() != source.portable(np.array([2, 0])).fingerprint()


def test_any_mode_becomes_rgb():
    grey = EncodedImages([encode(PICTURES[0].convert("L"))], ["grey"])
    assert grey[0].mode == "RGB"


def test_a_broken_image_is_named(tmp_path):
    with pytest.raises(UsageError, match="corrupt image third"):
        EncodedImages([encode(PICTURES[0])[:40]], ["third"])[0]
    with pytest.raises(UsageError, match=r"absent\.png is listed but not there"):
        FileImages([tmp_path / "absent.png"])[0]
