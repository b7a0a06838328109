"""Datasets that are known by name, on files of their real formats, which the tests write."""

import hashlib
import json
import pickle
import tarfile

import numpy as np
import pytest

from tests.data.samples import check_splits, picture
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.decoded import verify_images
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision

ensure_torchvision()


def test_digits_are_split_by_class_and_seed(digits):
    check_splits(digits, 1294, 144, 359)
    pairs = [(digits.train, digits.val), (digits.train, digits.test), (digits.val, digits.test)]
    assert not any(set(a.indices) & set(b.indices) for a, b in pairs)
    shares = np.bincount(digits.val.labels) / len(digits.val)
    assert np.abs(shares - np.bincount(digits.train.labels) / len(digits.train)).max() < 0.01
    again, other = (load_dataset(DataSettings(split_seed=seed)) for seed in (0, 1))
    assert np.array_equal(again.val.indices, digits.val.indices)
    assert not np.array_equal(other.val.indices, digits.val.indices)
    assert again.fingerprint() == digits.fingerprint() != other.fingerprint()


def test_digits_are_the_real_scans(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    image, label = digits.train[17]
    index = digits.train.indices[17]
    assert label == bunch.target[index]
    assert np.array_equal(np.asarray(image)[..., 1], np.rint(bunch.images[index] * 255 / 16))


def test_cifar100_in_the_format_of_its_authors(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    rng, lists = np.random.default_rng(0), {}
    for name, count in (("train", 400), ("test", 100)):
        pixels = rng.integers(0, 256, (count, 3 * 32 * 32), np.uint8)
        content = pickle.dumps({"data": pixels, "fine_labels": [i % 100 for i in range(count)]})
        (folder / name).write_bytes(content)
        lists[name] = [[name, hashlib.md5(content).hexdigest()]]
    meta = pickle.dumps({"fine_label_names": [f"class{i}" for i in range(100)]})
    (folder / "meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR100, "train_list", lists["train"])
    monkeypatch.setattr(CIFAR100, "test_list", lists["test"])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": hashlib.md5(meta).hexdigest()})
    data = load_dataset(DataSettings(name="cifar100", root=tmp_path, download=False))
    check_splits(data, 300, 100, 100)
    assert data.class_names[3] == "class3"
    assert data.train[0][0].size == (32, 32)


def test_flowers102_trains_on_train_and_val(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    root = tmp_path / "flowers-102"
    (root / "jpg").mkdir(parents=True)
    count = 612  # six of each class
    for i in range(1, count + 1):
        picture(i).save(root / "jpg" / f"image_{i:05}.jpg")
    ids = np.arange(1, count + 1)
    savemat(root / "imagelabels.mat", {"labels": (ids - 1) % 102 + 1})
    savemat(root / "setid.mat", {"trnid": ids[:204], "valid": ids[204:408], "tstid": ids[408:]})
    with tarfile.open(root / "102flowers.tgz", "w:gz") as archive:
        archive.add(root / "jpg", "jpg")
    hashes = {
        key: (name, hashlib.md5((root / name).read_bytes()).hexdigest())
        for key, (name, _) in Flowers102._file_dict.items()
    }
    monkeypatch.setattr(Flowers102, "_file_dict", hashes)
    data = load_dataset(DataSettings(name="flowers102", root=tmp_path, download=False))
    check_splits(data, 408 - 102, 102, 204)


def test_chaoyang_as_its_authors_lay_it_out(tmp_path):
    root = tmp_path / "chaoyang"
    for split, count in (("train", 40), ("test", 12)):
        (root / split).mkdir(parents=True)
        entries = [{"name": f"{split}/{i}.JPG", "label": i % 4} for i in range(count)]
        for i, entry in enumerate(entries):
            picture(i).save(root / entry["name"], "JPEG")
        (root / f"{split}.json").write_text(json.dumps(entries))
    data = load_dataset(DataSettings(name="chaoyang", root=tmp_path))
    check_splits(data, 36, 4, 12)
    assert data.class_names == ("normal", "serrated", "adenocarcinoma", "adenoma")
    (root / "train" / "3.JPG").unlink()
    with pytest.raises(UsageError, match=r"train/3\.JPG is listed but not there"):
        verify_images(load_dataset(DataSettings(name="chaoyang", root=tmp_path)))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "flowers102", "chaoyang"])
def test_absent_data_is_one_clear_line(name, tmp_path):
    with pytest.raises(UsageError) as error:
        load_dataset(DataSettings(name=name, root=tmp_path, download=False))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
