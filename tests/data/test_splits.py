import dataclasses
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.samples import labelled, picture, write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Split, carve
from tvt_ray.errors import UsageError


def test_portable_splits_need_no_disk(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    data = load_dataset(DataSettings(name=f"imagefolder:{folder}"))
    before = [(image.tobytes(), label) for image, label in (data.val[i] for i in range(len(data.val)))]
    carried = pickle.loads(pickle.dumps(data.val.portable()))
    for file in folder.rglob("*.png"):
        file.unlink()
    assert [(image.tobytes(), label) for image, label in (carried[i] for i in range(len(carried)))] == before


def test_a_class_with_one_image_cannot_be_carved(tmp_path):
    pq.write_table(labelled([0, 0, 0, 0, 1]), tmp_path / "d.parquet")
    with pytest.raises(UsageError, match="class 1 has a single image"):
        load_dataset(DataSettings(name=f"parquet:{tmp_path / 'd.parquet'}"))


def test_too_few_images_cannot_be_carved():
    with pytest.raises(UsageError, match="4 images of 2 classes are too few to carve a test split from"):
        carve(Split.whole(range(4), [0, 0, 1, 1]), 0.9, 0, "test")


def test_a_carved_split_has_the_same_share_of_every_class():
    rest, carved = carve(Split.whole(range(100), [0] * 80 + [1] * 20), 0.1, 0, "test")
    assert np.bincount(rest.labels).tolist() == [72, 18]
    assert np.bincount(carved.labels).tolist() == [8, 2]


def test_a_split_of_a_split_keeps_its_labels(digits):
    part = digits.test.take(np.array([5, 2])).take(np.array([1]))
    assert len(part) == 1
    assert part[0][1] == part.labels[0] == digits.test.labels[2]
    assert part[0][0].tobytes() == digits.test[2][0].tobytes()


def test_splits_have_names(digits):
    assert digits.split("val") is digits.val
    with pytest.raises(UsageError, match="unknown split 'validation'; choices: train, val, test"):
        digits.split("validation")


def test_a_fingerprint_is_of_images_labels_classes_and_splits(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    data = load_dataset(DataSettings(name=f"imagefolder:{folder}"))
    others = [
        dataclasses.replace(data, class_names=("a", "c")),
        dataclasses.replace(data, train=dataclasses.replace(data.train, all_labels=1 - data.train.all_labels)),
        dataclasses.replace(data, val=data.val.take(np.array([0]))),
    ]
    seen = [each.fingerprint() for each in (data, *others)]
    picture(99, size=(40, 40)).save(folder / "a" / "0.png")
    seen.append(load_dataset(DataSettings(name=f"imagefolder:{folder}")).fingerprint())
    assert len(set(seen)) == 5
