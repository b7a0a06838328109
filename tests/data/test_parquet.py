"""Parquet files, which the tests write."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import check_splits, labelled
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.verify import verify_images
from tvt_ray.errors import UsageError


@pytest.mark.parametrize("struct", [True, False])
def test_single_parquet_file_is_carved(tmp_path, struct):
    pq.write_table(labelled([0, 1, 2] * 10, struct=struct), tmp_path / "d.parquet")
    data = load_dataset(DataSettings(name=f"parquet:{tmp_path / 'd.parquet'}"))
    check_splits(data, 21, 3, 6)
    assert data.class_names == ("0", "1", "2")


def test_parquet_folder_as_hugging_face_lays_it_out(tmp_path):
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee"]}}}}
    metadata = {"huggingface": json.dumps(features)}
    (tmp_path / "data").mkdir()
    for name, count in (("train-00000-of-00002", 10), ("train-00001-of-00002", 10), ("test-00000-of-00001", 6)):
        pq.write_table(labelled([0, 1] * (count // 2), metadata), tmp_path / "data" / f"{name}.parquet")
    data = load_dataset(DataSettings(name=f"parquet:{tmp_path}"))
    check_splits(data, 18, 2, 6)
    assert data.class_names == ("ant", "bee")


def test_parquet_with_named_labels_or_class_names(tmp_path):
    pq.write_table(labelled(["x", "y"] * 10), tmp_path / "a.parquet")
    data = load_dataset(DataSettings(name=f"parquet:{tmp_path / 'a.parquet'}"))
    assert data.class_names == ("x", "y")
    check_splits(data, 14, 2, 4)
    pq.write_table(labelled([0, 1] * 10, {"class_names": "p,q"}), tmp_path / "b.parquet")
    assert load_dataset(DataSettings(name=f"parquet:{tmp_path / 'b.parquet'}")).class_names == ("p", "q")


def test_broken_parquet_is_refused_by_name(tmp_path):
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 junk")
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "columns.parquet")
    pq.write_table(labelled([0, 5] * 10, {"class_names": "p,q"}), tmp_path / "labels.parquet")
    pq.write_table(pa.table({"image": [b"no image"] * 20, "label": [0, 1] * 10}), tmp_path / "images.parquet")
    for name, message in (("junk", "cannot be read as Parquet"), ("columns", "label"), ("labels", "0 to 1")):
        with pytest.raises(UsageError, match=message):
            load_dataset(DataSettings(name=f"parquet:{tmp_path / name}.parquet"))
    with pytest.raises(UsageError, match=r"corrupt image .*row \d+"):
        verify_images(load_dataset(DataSettings(name=f"parquet:{tmp_path / 'images.parquet'}")))


def test_a_folder_without_training_files_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no \.parquet file"):
        load_dataset(DataSettings(name=f"parquet:{tmp_path}"))
    pq.write_table(labelled([0, 1] * 3), tmp_path / "test.parquet")
    with pytest.raises(UsageError, match=r"holds test\.parquet but no train\*\.parquet"):
        load_dataset(DataSettings(name=f"parquet:{tmp_path}"))


def test_train_val_and_test_are_taken_as_they_are(tmp_path):
    for name, count in (("train", 10), ("val", 4), ("test", 6)):
        pq.write_table(labelled([0, 1] * (count // 2)), tmp_path / f"{name}.parquet")
    check_splits(load_dataset(DataSettings(name=f"parquet:{tmp_path}")), 10, 4, 6)
    (tmp_path / "test.parquet").unlink()
    check_splits(load_dataset(DataSettings(name=f"parquet:{tmp_path}")), 8, 2, 4)  # tested on val
