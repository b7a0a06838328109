import dataclasses
import os
import pickle
import shutil

import numpy as np
import pytest

from tests.data.samples import picture, write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Loaded, Split, carve, joined, place_splits
from tvt_ray.errors import UsageError


def test_portable_splits_need_no_disk(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    data = load_dataset(DataSettings(name=f"imagefolder:{folder}"))
    before = [(image.tobytes(), label) for image, label in (data.val[i] for i in range(len(data.val)))]
    carried = pickle.loads(pickle.dumps(data.val.portable()))
    for file in folder.rglob("*.png"):
        file.unlink()
    assert [(image.tobytes(), label) for image, label in (carried[i] for i in range(len(carried)))] == before


def carved_counts(counts, fraction, leave=1, seed=0):
    """Images by class, of the rest and of what is carved."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rest, carved = carve(Split.whole(range(len(labels)), labels), fraction, seed, leave)
    assert sorted([*rest.indices, *carved.indices]) == list(range(len(labels)))
    return [np.bincount(part.labels, minlength=len(counts)).tolist() for part in (rest, carved)]


def test_a_carved_split_has_the_same_share_of_every_class():
    assert carved_counts([80, 20], 0.1) == [[72, 18], [8, 2]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("leave", [1, 2])
@pytest.mark.parametrize("rare", [[3], [3, 3], [3, 40, 3, 5]])
def test_every_class_is_in_both_parts_however_rare(rare, leave, fraction, seed):
    """Stratifying alone rounds a small class away."""
    rest, carved = carved_counts([100, *rare], fraction, leave, seed)
    assert min(rest) >= leave
    assert min(carved) >= 1


def test_what_is_carved_depends_on_the_seed_alone():
    split = Split.whole(range(103), np.repeat([0, 1], [100, 3]))
    carved = [carve(split, 0.1, seed)[1].indices.tolist() for seed in (0, 0, 1)]
    assert carved[0] == carved[1] != carved[2]
    assert len({carve(split, 0.01, seed)[1].indices[-1] for seed in range(9)}) == 3  # which of the three rare ones


def test_too_few_images_of_a_class_cannot_be_carved():
    with pytest.raises(ValueError, match="class 1 has 2 images; 3 are needed to carve"):
        carved_counts([9, 2], 0.1, leave=2)


def test_a_split_of_a_split_keeps_its_labels(digits):
    part = digits.test.take(np.array([5, 2])).take(np.array([1]))
    assert len(part) == 1
    assert part[0][1] == part.labels[0] == digits.test.labels[2]
    assert part[0][0].tobytes() == digits.test[2][0].tobytes()


def test_splits_have_names(digits):
    assert digits.split("val") is digits.val
    assert list(digits.splits) == ["train", "val", "test"]
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


def test_a_dataset_that_was_moved_and_touched_keeps_its_fingerprint(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    before = load_dataset(DataSettings(name=f"imagefolder:{folder}")).fingerprint()
    shutil.move(folder, tmp_path / "elsewhere")
    for file in (tmp_path / "elsewhere").rglob("*.png"):
        os.utime(file, (1, 1))
    assert load_dataset(DataSettings(name=f"imagefolder:{tmp_path / 'elsewhere'}")).fingerprint() == before


def test_val_is_the_test_split_where_there_is_no_other():
    origins = {"train": "a/", "val": "b/"}
    moved = place_splits({"train": 1, "val": 2}, "names", ["note"], origins)
    said = "there is no test split: val is used as it, and validation is carved from train"
    assert moved == Loaded(1, 2, None, "names", (said, "note"), {"train": "a/", "test": "b/"})
    assert place_splits({"train": 1, "val": 2, "test": 3}, "names")[:3] == (1, 3, 2)
    assert place_splits({"train": 1, "test": 3}, "names") == Loaded(1, 3, None, "names")
    assert place_splits({"train": 1}, "names") == Loaded(1, None, None, "names")


def test_joined_splits_hold_the_images_of_both_in_order_and_travel(digits):
    first, second = digits.train.take(np.array([5, 2, 9])), digits.val.take(np.array([1, 0]))
    both = joined(first, second)
    assert both.labels.tolist() == [*first.labels, *second.labels]
    images = [split[i][0].tobytes() for split in (first, second) for i in range(len(split))]
    assert [both[i][0].tobytes() for i in range(5)] == images
    some = both.take(np.array([1, 2, 4])).portable()
    assert [some[i][0].tobytes() for i in range(3)] == [images[i] for i in (1, 2, 4)]
    assert joined(second, first).source.fingerprint() != both.source.fingerprint()
