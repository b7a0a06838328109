import functools

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.samples import encode, picture
from tvt_ray.data.images import EncodedImages
from tvt_ray.data.looking import Size
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.survey import Told, survey
from tvt_ray.errors import UsageError

look = functools.partial(survey, has_gpu=False)


def made(*images):
    """A dataset whose training split has these images, encoded."""
    names = [f"/d/{i}.png" for i in range(len(images))]
    train = Split.whole(EncodedImages(images, names), [0] * len(images))
    rest = Split.whole(EncodedImages([encode(picture(5, (20, 20)))], ["/d/rest.png"]), [0])
    return Dataset("imagefolder:/d", train, rest, rest, ("a",))


def test_sizes_are_ordered_by_the_number_of_pixels():
    found = look(made(*[encode(picture(i, size)) for i, size in enumerate([(4, 90), (30, 30), (64, 2)])])).sizes
    assert (found.smallest, found.median, found.largest) == (Size(64, 2), Size(20, 20), Size(30, 30))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_sizes_are_of_upright_images(kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = encode(picture(0, (900, 600)), kind, exif=exif)
    assert look(made(image)).sizes.largest == Size(600, 900)


def test_modes_are_those_of_the_files_the_most_frequent_first():
    deep = Image.fromarray(np.arange(400).reshape(20, 20).astype(np.uint16) * 160)
    images = [picture(1), picture(2).convert("L"), deep, picture(3).convert("RGBA"), picture(4).convert("L")]
    assert look(made(*map(encode, images))).modes == {"RGB": 3, "L": 2, "I;16": 1, "RGBA": 1}


def test_images_in_which_there_is_nothing_to_see_are_counted():
    dark = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)  # 12 bits in 16
    clear = Image.new("RGBA", (20, 20), (9, 9, 9, 0))
    images = [picture(1), Image.new("RGB", (9, 9), (1, 200, 3)), Image.fromarray(dark), clear]
    found = look(made(*map(encode, images)))
    assert found.single_value == Told(2, "1.png")
    assert found.few_levels == Told(1, "2.png")
    assert look(made(encode(picture(1)))).single_value == Told(0, None)


def test_a_large_photograph_is_looked_at_at_a_smaller_scale_and_whole():
    data = encode(picture(1, (1200, 900)), "JPEG")
    found = look(made(data))
    assert found.sizes.largest == Size(1200, 900)
    assert found.few_levels.num_images == 0
    with pytest.raises(UsageError, match=r"corrupt image /d/0\.png: .*truncated"):
        look(made(data[:-2000]))


def test_images_in_memory_have_sizes_too(digits):
    found = look(digits)
    assert found.sizes.smallest == found.sizes.largest == Size(8, 8)
    assert found.modes == {"RGB": 1797}
    assert found.recommended_image_size == 32


def test_the_recommended_size_is_what_this_machine_takes():
    sizes = [
        (found.recommended_image_size, found.image_size_with_gpu)
        for found in (survey(made(encode(picture(0, (128, 96)))), has_gpu) for has_gpu in (False, True))
    ]
    assert sizes == [(64, 96), (96, 96)]
