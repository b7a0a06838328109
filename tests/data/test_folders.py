"""Image folders, which the tests write."""

import pytest

from tests.data.samples import check_splits, picture, write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.verify import verify_images
from tvt_ray.errors import UsageError


def test_image_folder_without_splits(tmp_path):
    data = load_dataset(DataSettings(name=f"imagefolder:{write_class_folders(tmp_path / 'd', ['cat', 'dog'], 20)}"))
    check_splits(data, 29, 3, 8)
    assert data.class_names == ("cat", "dog")


def test_image_folder_with_train_and_val_tests_on_val(tmp_path):
    write_class_folders(tmp_path / "train", ["a", "b"], 10)
    write_class_folders(tmp_path / "val", ["a", "b"], 3)
    check_splits(load_dataset(DataSettings(name=f"imagefolder:{tmp_path}")), 18, 2, 6)
    write_class_folders(tmp_path / "test", ["a", "b"], 4)
    check_splits(load_dataset(DataSettings(name=f"imagefolder:{tmp_path}")), 20, 6, 8)


def test_broken_image_folders_are_refused_by_name(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no images in the class folder\(s\) empty"):
        load_dataset(DataSettings(name=f"imagefolder:{folder}"))
    (folder / "empty").rmdir()
    broken = folder / "b" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = load_dataset(DataSettings(name=f"imagefolder:{folder}"))
    with pytest.raises(UsageError, match=r"corrupt image .*b/3\.png"):
        verify_images(data)
    picture(7).save(broken)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no class folders"):
        load_dataset(DataSettings(name=f"imagefolder:{tmp_path / 'none'}"))


def test_real_photographs(shared_data):
    data = load_dataset(DataSettings(name=f"imagefolder:{shared_data / 'hymenoptera_96px'}"))
    assert [len(data.train), len(data.val), len(data.test)] == [220, 24, 153]
    assert data.class_names == ("ants", "bees")
    verify_images(data)


def test_splits_of_other_classes_are_refused(tmp_path):
    write_class_folders(tmp_path / "train", ["a", "b"], 10)
    write_class_folders(tmp_path / "test", ["a", "c"], 3)
    with pytest.raises(UsageError, match="test has the classes a, c; train has a, b"):
        load_dataset(DataSettings(name=f"imagefolder:{tmp_path}"))


def test_a_single_class_is_refused(tmp_path):
    write_class_folders(tmp_path / "d", ["a"], 10)
    with pytest.raises(UsageError, match="the single class a"):
        load_dataset(DataSettings(name=f"imagefolder:{tmp_path / 'd'}"))
