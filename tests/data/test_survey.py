import dataclasses
import functools

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.samples import encode, picture, write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.images import ArrayImages, EncodedImages
from tvt_ray.data.looking import Size
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.survey import (
    Repeats,
    Told,
    duplicate_notes,
    find_duplicates,
    header_facts,
    image_size,
    median_side,
    name_of,
    survey,
)
from tvt_ray.errors import UsageError


def make(*places):
    """A dataset of images that stand at (split, label, which picture)."""
    splits = {}
    for split in ("train", "val", "test"):
        mine = [(label, which) for name, label, which in places if name == split]
        names = [f"/d/{split}/{i}" for i in range(len(mine))]
        source = EncodedImages([encode(picture(which)) for _, which in mine], names)
        splits[split] = Split.whole(source, [label for label, _ in mine])
    return Dataset("imagefolder:/d", **splits, class_names=("a", "b"))


NONE = Repeats(0, ())


def test_different_images_are_no_duplicates():
    data = make(("train", 0, 1), ("train", 1, 2), ("val", 0, 3), ("test", 0, 4))
    assert dataclasses.astuple(find_duplicates(data)) == ((0, ()),) * 5
    assert duplicate_notes(data) == []


def test_copies_are_counted_once_by_where_they_are():
    same = find_duplicates(make(*[("train", 0, 1)] * 3, ("train", 0, 2), ("train", 0, 2)))
    assert same.within_class == Repeats(2, ("train/0", "train/1"))
    assert same.between_classes == same.between_splits == NONE
    labels = find_duplicates(make(("train", 0, 1), ("train", 1, 1), ("train", 1, 2)))
    assert labels.between_classes == Repeats(1, ("train/0", "train/1"))
    assert labels.within_class == labels.between_splits == NONE
    splits = find_duplicates(make(("train", 0, 1), ("val", 0, 1), ("test", 0, 1)))
    assert splits.between_splits == Repeats(1, ("train/0", "val/0"))
    assert splits.within_class == splits.between_classes == NONE


def test_one_image_may_be_of_all_kinds():
    found = find_duplicates(make(("train", 0, 1), ("train", 0, 1), ("test", 1, 1)))
    assert found.within_class == Repeats(1, ("train/0", "train/1"))
    assert found.between_classes == found.between_splits == Repeats(1, ("train/0", "test/0"))


def test_what_makes_accuracies_doubtful_is_said():
    notes = duplicate_notes(make(("train", 0, 1), ("train", 0, 1), ("test", 1, 1), ("test", 1, 2), ("train", 1, 2)))
    assert notes == [
        "1 image in more than one class, such as train/0 and test/0: at most one of the labels is right",
        "2 images in more than one split, such as train/0 and test/0: accuracy there counts what was seen in training",
    ]


@pytest.mark.timeout(20)
def test_ten_thousand_copies_take_no_time():
    source = ArrayImages(np.zeros((10_000, 2, 2, 3), np.uint8))
    half = Split.whole(source, np.zeros(10_000))
    data = Dataset(
        "made", half.take(np.arange(9000)), half.take(np.arange(9000, 9500)), half.take(np.arange(9500, 10_000)), ("a",)
    )
    found = find_duplicates(data)
    assert (found.within_class.num_images, found.between_splits.num_images) == (1, 1)
    assert found.within_class.example == ("train image 0", "train image 1")
    assert duplicate_notes(data) == []  # of images without names nothing is said unasked


def test_an_image_is_called_by_its_place_in_the_dataset(digits):
    assert name_of(make(("train", 0, 1), ("val", 0, 2)), "val", 0) == "val/0"
    assert name_of(digits, "test", 3) == "test image 3"


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
