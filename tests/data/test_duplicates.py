import dataclasses

import numpy as np
import pytest

from tests.data.samples import encode, picture
from tvt_ray.data.duplicates import Repeats, duplicate_notes, find_duplicates, name_of
from tvt_ray.data.images import ArrayImages, EncodedImages
from tvt_ray.data.splits import Dataset, Split


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
    assert dataclasses.astuple(find_duplicates(data)) == ((0, ()),) * 3
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
