"""How large networks see images."""

import numpy as np
import pytest

from tests.data.samples import encode, picture, write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.image_size import header_facts, image_size, median_side
from tvt_ray.data.images import EncodedImages
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Dataset, Split


@pytest.mark.parametrize(
    ("side", "without_gpu", "with_gpu"),
    [(8, 32, 32), (47, 32, 32), (48, 48, 48), (96, 64, 96), (100, 64, 96), (191, 64, 160), (3000, 64, 224)],
)
def test_images_are_as_large_as_they_need_not_be_enlarged_and_the_machine_can_take(side, without_gpu, with_gpu):
    assert (image_size(side, has_gpu=False), image_size(side, has_gpu=True)) == (without_gpu, with_gpu)


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(96, 128)], 96),
        ([(100, 400)], 100),
        ([(64, 48)] * 9 + [(32, 32)] * 2, 48),
        ([(64, 48)] * 2 + [(7, 6)] * 9, 6),
        ([(16, 17), (19, 30), (80, 80)], 19),
    ],
)
def test_half_of_the_training_images_are_enlarged_at_most(sizes, side):
    source = EncodedImages([encode(picture(0, size)) for size in [*sizes, (300, 300)]], [""] * (len(sizes) + 1))
    whole = Split.whole(source, [0] * len(source))
    train, test = whole.take(np.arange(len(sizes))), whole.take(np.array([len(sizes)]))
    assert median_side(header_facts(Dataset("made", train, test, test, ("a",)))) == side


def test_whichever_images_validate_the_headers_are_the_same(tmp_path):
    name = f"imagefolder:{write_class_folders(tmp_path / 'd', ['a', 'b'], 10)}"
    for number in range(5):
        picture(number, (40 + number, 50)).save(tmp_path / "d" / "a" / f"{number}.png")
    seen = [header_facts(load_dataset(DataSettings(name=name, val_fraction=share))) for share in (0.1, 0.5)]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 16
