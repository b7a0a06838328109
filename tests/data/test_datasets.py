"""Datasets on files of their real formats, which the tests write."""

import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tvt_ray.data import DATASETS, DataSettings, load_dataset
from tvt_ray.data.verify import verify_images
from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision

ensure_torchvision()


def picture(seed, size=(12, 10)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_class_folders(path, names, count):
    for label, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for i in range(count):
            picture(100 * label + i).save(path / name / f"{i}.png")
    return path


def check_splits(data, num_train, num_val, num_test):
    """Sizes as expected, every class in every split, and no image in two of them."""
    splits = (data.train, data.val, data.test)
    assert [len(split) for split in splits] == [num_train, num_val, num_test]
    for split in splits:
        assert set(split.labels) == set(range(data.num_classes))
    seen = [image.tobytes() for split in splits for image, _ in (split[i] for i in range(len(split)))]
    assert len(seen) == num_train + num_val + num_test


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


def test_portable_splits_need_no_disk(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    data = load_dataset(DataSettings(name=f"imagefolder:{folder}"))
    before = [(image.tobytes(), label) for image, label in (data.val[i] for i in range(len(data.val)))]
    carried = pickle.loads(pickle.dumps(data.val.portable()))
    for file in folder.rglob("*.png"):
        file.unlink()
    assert [(image.tobytes(), label) for image, label in (carried[i] for i in range(len(carried)))] == before


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


def test_a_whole_dataset_is_decoded_once(tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    opened = []
    monkeypatch.setattr(Image, "open", lambda *args: opened.append(args) or 1 / 0)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    assert not opened


def table(labels, metadata=None, struct=True, label_type=None):
    images = [encode(picture(i)) for i in range(len(labels))]
    column = pa.array([{"bytes": b, "path": None} for b in images] if struct else images)
    made = pa.table({"image": column, "label": pa.array(labels, label_type)})
    return made.replace_schema_metadata(metadata)


@pytest.mark.parametrize("struct", [True, False])
def test_single_parquet_file_is_carved(tmp_path, struct):
    pq.write_table(table([0, 1, 2] * 10, struct=struct), tmp_path / "d.parquet")
    data = load_dataset(DataSettings(name=f"parquet:{tmp_path / 'd.parquet'}"))
    check_splits(data, 21, 3, 6)
    assert data.class_names == ("0", "1", "2")


def test_parquet_folder_as_hugging_face_lays_it_out(tmp_path):
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee"]}}}}
    metadata = {"huggingface": json.dumps(features)}
    (tmp_path / "data").mkdir()
    for name, count in (("train-00000-of-00002", 10), ("train-00001-of-00002", 10), ("test-00000-of-00001", 6)):
        pq.write_table(table([0, 1] * (count // 2), metadata), tmp_path / "data" / f"{name}.parquet")
    data = load_dataset(DataSettings(name=f"parquet:{tmp_path}"))
    check_splits(data, 18, 2, 6)
    assert data.class_names == ("ant", "bee")


def test_parquet_with_named_labels_or_class_names(tmp_path):
    pq.write_table(table(["x", "y"] * 10), tmp_path / "a.parquet")
    data = load_dataset(DataSettings(name=f"parquet:{tmp_path / 'a.parquet'}"))
    assert data.class_names == ("x", "y")
    check_splits(data, 14, 2, 4)
    pq.write_table(table([0, 1] * 10, {"class_names": "p,q"}), tmp_path / "b.parquet")
    assert load_dataset(DataSettings(name=f"parquet:{tmp_path / 'b.parquet'}")).class_names == ("p", "q")


def test_broken_parquet_is_refused_by_name(tmp_path):
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 junk")
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "columns.parquet")
    pq.write_table(table([0, 5] * 10, {"class_names": "p,q"}), tmp_path / "labels.parquet")
    pq.write_table(pa.table({"image": [b"no image"] * 20, "label": [0, 1] * 10}), tmp_path / "images.parquet")
    for name, message in (("junk", "cannot be read as Parquet"), ("columns", "label"), ("labels", "0 to 1")):
        with pytest.raises(UsageError, match=message):
            load_dataset(DataSettings(name=f"parquet:{tmp_path / name}.parquet"))
    with pytest.raises(UsageError, match=r"corrupt image .*row \d+"):
        verify_images(load_dataset(DataSettings(name=f"parquet:{tmp_path / 'images.parquet'}")))


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean 'digits'.*imagefolder:PATH"),
        ("imagefolder", "imagefolder:PATH"),
        ("imagefolder:/no/such/place", "there is no /no/such/place"),
        ("digits:/tmp", "takes no path"),
    ],
)
def test_wrong_names_are_refused_with_the_choices(name, message):
    assert "digits" in DATASETS
    with pytest.raises(UsageError, match=message):
        load_dataset(DataSettings(name=name))


def test_a_class_with_one_image_cannot_be_carved(tmp_path):
    pq.write_table(table([0, 0, 0, 0, 1]), tmp_path / "d.parquet")
    with pytest.raises(UsageError, match="class 1 has a single image"):
        load_dataset(DataSettings(name=f"parquet:{tmp_path / 'd.parquet'}"))


def test_real_photographs(shared_data):
    data = load_dataset(DataSettings(name=f"imagefolder:{shared_data / 'hymenoptera_96px'}"))
    assert [len(data.train), len(data.val), len(data.test)] == [220, 24, 153]
    assert data.class_names == ("ants", "bees")
    verify_images(data)
