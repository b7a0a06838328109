"""The table of datasets, and what is asked of all of them."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.samples import check_splits, labelled, picture, write_class_folders
from tvt_ray.data.datasets import (
    DATASETS,
    check_name,
    check_outside,
    dataset_name,
    describe_datasets,
    load_dataset,
    recarved,
)
from tvt_ray.data.decoded import decode_once
from tvt_ray.data.images import ArrayImages
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Loaded, Split
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import load_config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean 'digits'.*imagefolder:PATH"),
        ("imagefolder", "as in imagefolder:PATH"),
        ("imagefolder:", "as in imagefolder:PATH"),
        ("imagefolder:/no/such/place", "there is no /no/such/place"),
        ("parquet:s3://bucket/d", "datasets are read from a disk; copy this one to a folder first"),
        (
            "https://there/photos.zip",
            "copy this one to a folder first; photos.zip holds images packed: unzip photos.zip",
        ),
        ("hf://datasets/them/photos", "datasets are read from a disk; copy this one to a folder first"),
        ("s3://me:hidden@bucket/d", "s3://bucket/d was given with a key or a password"),
        ("digits:/tmp", "takes no path"),
    ],
)
def test_wrong_names_are_refused_with_the_choices(name, message):
    assert "digits" in DATASETS
    with pytest.raises(UsageError, match=message) as error:
        load_dataset(DataSettings(name=name))
    if "there is no" not in message:  # a run whose images are elsewhere now can still be read
        with pytest.raises(UsageError, match=f"^{re.escape(str(error.value))}$"):
            load_config(None, [{"data": {"name": name}}])


def test_names_are_described_as_people_write_them():
    assert [name.removesuffix(":PATH") for name in describe_datasets()] == list(DATASETS)
    assert {name for name in describe_datasets() if name.endswith(":PATH")} == {"imagefolder:PATH", "parquet:PATH"}


def test_a_path_is_an_image_folder_or_parquet_and_a_name_a_name(tmp_path, monkeypatch):
    (tmp_path / "tables" / "data").mkdir(parents=True)
    pq.write_table(labelled([0, 1]), tmp_path / "tables" / "data" / "train.parquet")
    for folder in ("photos", "digits"):
        write_class_folders(tmp_path / folder, ["a", "b"], 1)
    monkeypatch.chdir(tmp_path)
    assert dataset_name("photos") == "imagefolder:photos"
    assert dataset_name("tables") == "parquet:tables"
    assert dataset_name("tables/data/train.parquet") == "parquet:tables/data/train.parquet"
    assert dataset_name("./digits") == "imagefolder:digits"
    assert dataset_name((tmp_path / "photos").as_uri()) == f"imagefolder:{tmp_path}/photos"
    for name in ("digits", "imagefolder:photos", "nowhere", ""):
        assert dataset_name(name) == name


def test_a_folder_of_both_is_asked_about(tmp_path):
    """Pictures of a description beside tables are none of the dataset; class folders beside them are another one."""
    (tmp_path / "all" / "cifar").mkdir(parents=True)
    pq.write_table(labelled([0, 1]), tmp_path / "all" / "cifar" / "train.parquet")
    write_class_folders(tmp_path / "all", ["pictures"], 3)
    assert dataset_name(str(tmp_path / "all")) == f"parquet:{tmp_path}/all"
    write_class_folders(tmp_path / "all" / "photos" / "train", ["a", "b"], 2)
    with pytest.raises(UsageError) as error:
        dataset_name(str(tmp_path / "all"))
    assert str(error.value) == (
        f"{tmp_path}/all holds Parquet with images (cifar/train.parquet) and image files in 3 folders "
        f"(photos/train/a, …); name what is meant, as in parquet:{tmp_path}/all/cifar or "
        f"imagefolder:{tmp_path}/all/photos"
    )
    assert dataset_name(f"parquet:{tmp_path}/all/cifar") == f"parquet:{tmp_path}/all/cifar"


def test_nothing_is_written_where_it_would_become_data(tmp_path):
    photos, link = write_class_folders(tmp_path / "photos", ["a", "b"], 1), tmp_path / "link"
    link.symlink_to(photos)
    name = f"imagefolder:{photos}"
    for inside in (photos, photos / "run", photos / "a" / "run", link / "run", tmp_path / "x" / ".." / "photos"):
        with pytest.raises(UsageError, match="lies in the dataset's own folder"):
            check_outside(inside, name)
    for outside in (tmp_path, tmp_path / "photos2", tmp_path / "run"):
        check_outside(outside, name)
    check_outside(tmp_path, "digits")


def test_splits_that_are_not_there_are_carved_as_the_settings_say(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 20)
    settings = DataSettings(name=f"imagefolder:{folder}", test_fraction=0.5, val_fraction=0.25)
    data = load_dataset(settings)
    check_splits(data, 15, 5, 20)
    assert data.name == settings.name
    assert data.num_classes == 2
    assert data.origins == {"test": "carved: 50% of the images", "val": "carved: 25% of the training images"}


@pytest.fixture
def load(monkeypatch):
    """A dataset with so many images of each class in each split, which are None where they are to be carved."""

    def images(counts, seed):
        labels = np.repeat(np.arange(len(counts)), counts)
        pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 3), np.uint8)
        return Split.whole(ArrayImages(pixels), labels)

    def load(names, train, test=None, val=None, **settings):
        splits = [None if counts is None else images(counts, seed) for seed, counts in enumerate((train, test, val))]
        monkeypatch.setitem(DATASETS, "made", (lambda settings, path: Loaded(*splits, names), False))
        return load_dataset(DataSettings(name="made", **settings))

    return load


def test_rare_classes_are_in_every_split(load):
    for seed in range(5):
        data = load(["a", "b", "rare"], [100, 30, 3], split_seed=seed)
        assert [int((split.labels == 2).sum()) for split in data.splits.values()] == [1, 1, 1]
        assert [len(data.val), len(data.test)] == pytest.approx([11, 27], abs=1)
        data = load(["a", "b", "rare"], [100, 30, 2], [5, 5, 1], split_seed=seed)
        assert [int((split.labels == 2).sum()) for split in data.splits.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (([9, 2, 1],), r"every class needs 3 images, .* \(test and validation\); too few: dog \(2\), eel \(1\)"),
        (([9, 9, 1], [1, 1, 1]), r"needs 2 images, .* \(validation\); too few: eel \(1\)"),
        (([9, 9, 0],), r"no training images of the class\(es\) eel"),
        (([9, 9, 0], [1, 1, 1], [1, 1, 1]), r"no training images of the class\(es\) eel"),
        (([9, 9, 9], [0, 0, 0]), "the split test is empty"),
        (([9, 9, 9], [1, 1, 1], [0, 0, 0]), "the split val is empty"),
        (([9, 9, 9, 9], [1, 1, 1]), "labels go from 0 to 2 for 3 classes; got 0 to 3 in train"),
        (([9, 9, 9], [1, 1, 1, 1]), "labels go from 0 to 2 for 3 classes; got 0 to 3 in test"),
    ],
)
def test_classes_and_splits_that_lack_images_are_refused_by_name(splits, message, load):
    with pytest.raises(UsageError, match=message) as error:
        load(["cat", "dog", "eel"], *splits)
    assert "\n" not in str(error.value)


def test_a_class_that_a_given_split_lacks_is_said(load):
    data = load(["cat", "dog", "eel"], [9, 9, 9], [3, 0, 0], [1, 1, 0])
    assert data.notes == ("val has no images of eel", "test has no images of dog, eel")
    assert load(["cat", "dog"], [1, 1], [1, 1], [1, 1]).notes == ()


@pytest.mark.parametrize("names", [["cat"], ["cat", "cat"]])
def test_classes_are_two_at_least_and_have_different_names(names, load):
    with pytest.raises(UsageError, match=r"has the single class cat|more than one class called cat"):
        load(names, [9] * len(names))


def test_a_loader_may_give_a_plain_tuple(monkeypatch):
    split = Split.whole(ArrayImages(np.zeros((20, 4, 4, 3), np.uint8)), np.arange(20) % 2)
    monkeypatch.setitem(DATASETS, "made", (lambda settings, path: (split, None, None, ("a", "b")), False))
    check = load_dataset(DataSettings(name="made"))
    assert (len(check.train), len(check.val), len(check.test), check.notes) == (14, 2, 4, ())


def test_the_same_photo_in_two_classes_or_splits_is_said(tmp_path):
    for number, (split, name) in enumerate([("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")]):
        (tmp_path / split / name).mkdir(parents=True)
        for i in range(6):
            picture(100 * number + i).save(tmp_path / split / name / f"{i}.png")
    picture(0).save(tmp_path / "train" / "b" / "copy.png")
    picture(1).save(tmp_path / "test" / "a" / "copy.png")
    assert load_dataset(DataSettings(name=f"imagefolder:{tmp_path}")).notes[-2:] == (
        "1 image in more than one class, such as train/a/0.png and train/b/copy.png: "
        "at most one of the labels is right",
        "1 image in more than one split, such as train/a/1.png and test/a/copy.png: "
        "accuracy there counts what was seen in training",
    )


@pytest.fixture(params=["digits", "folder", "folder with test", "folder with all", "parquet", "parquet with test"])
def dataset(request, tmp_path):
    """A dataset's name; what is not given is carved, and one image is there twice."""
    kind, _, given = request.param.partition(" with ")
    splits = {"": [""], "test": ["train", "test"], "all": ["train", "val", "test"]}[given]
    if kind == "digits":
        return "digits"
    if kind == "parquet":
        for seed, split in enumerate(splits):
            pq.write_table(labelled([0, 1, 2] * 20, seed=50 * seed), tmp_path / f"{split or 'images'}.parquet")
        return f"parquet:{tmp_path}"
    for split in splits:
        write_class_folders(tmp_path / split, ["a", "b"], 20)
    return f"imagefolder:{tmp_path}"


def test_splits_carved_anew_are_those_of_a_dataset_that_is_loaded_anew(dataset, monkeypatch):
    data = load_dataset(DataSettings(name=dataset))
    for changed in ({"val_fraction": 0.3}, {"split_seed": 5}, {"val_fraction": 0.2, "test_fraction": 0.5}):
        settings = DataSettings(name=dataset, **changed)
        expected = load_dataset(settings)
        with monkeypatch.context() as patch:
            patch.setitem(DATASETS, dataset.partition(":")[0], (lambda *args: pytest.fail("loaded"), ":" in dataset))
            again = recarved(data, settings)
        for name, split in expected.splits.items():
            assert again.split(name).source is data.train.source or name in ("val", "test")
            assert again.split(name).indices.tolist() == split.indices.tolist()
            assert again.split(name).labels.tolist() == split.labels.tolist()
        for field in ("name", "class_names", "notes", "origins", "settings"):
            assert getattr(again, field) == getattr(expected, field)
        assert again.fingerprint() == expected.fingerprint()


def test_other_settings_load_a_dataset_anew(tmp_path):
    settings = DataSettings(name=f"imagefolder:{write_class_folders(tmp_path / 'd', ['a', 'b'], 20)}")
    data = load_dataset(settings)
    assert recarved(data, settings) is data
    assert recarved(data, DataSettings()).fingerprint() == load_dataset(DataSettings()).fingerprint()
    grey = settings.model_copy(update={"background": "grey", "val_fraction": 0.3})
    assert recarved(data, grey).fingerprint() == load_dataset(grey).fingerprint()
    carved = settings.model_copy(update={"val_fraction": 0.3})
    decoded = decode_once(data, 32)
    assert recarved(decoded, carved).fingerprint() == load_dataset(carved).fingerprint()


@pytest.mark.parametrize("name", ["x" * 100_000, "a\0b"])
def test_a_name_that_no_file_can_have_is_one_line(name):
    with pytest.raises(UsageError, match="unknown dataset"):
        check_name(DataSettings(name=name))
