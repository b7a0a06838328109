"""Which Parquet files belong to which split, in the layouts of Hugging Face and of people, which the tests write."""

import functools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import samples
from tests.data.samples import check_splits, labelled

load, refused = (functools.partial(call, "parquet") for call in (samples.load, samples.refused))


def write(root, counts, metadata=None):
    """A file for each name, with as many images of its own of the classes 0 and 1."""
    for number, (name, count) in enumerate(counts.items()):
        path = root / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(labelled([0, 1] * (count // 2), metadata, seed=1000 * number), path)
    return root


@pytest.mark.parametrize("struct", [True, False])
def test_single_parquet_file_is_carved(tmp_path, struct):
    pq.write_table(labelled([0, 1, 2] * 10, struct=struct), tmp_path / "test.parquet")
    data = load(tmp_path / "test.parquet")
    check_splits(data, 21, 3, 6)
    assert data.class_names == ("0", "1", "2")
    assert data.notes == ()


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"),
        ("default/train/0000", "default/train/0001", "default/test/0000"),
        ("default/partial-train/0000", "default/partial-train/0001", "default/partial-test/0000"),
        ("TRAIN/a", "TRAIN/b", "Testing/a"),
        ("my_train-00000-of-00002", "my_train-00001-of-00002", "my_test-00000-of-00001"),
        ("training_1", "training_2", "eval"),
    ],
    ids=lambda names: names[0].replace("/", "|"),
)
def test_layouts_of_hugging_face_and_of_people(tmp_path, names):
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["ant", "bee"]}}}})}
    data = load(write(tmp_path, dict(zip(names, (10, 10, 6), strict=True)), metadata))
    check_splits(data, 18, 2, 6)
    assert data.class_names == ("ant", "bee")
    assert data.notes == ()
    assert data.origins == {
        "train": f"{names[0]}.parquet and 1 more",
        "test": f"{names[2]}.parquet",
        "val": "carved: 10% of the training images",
    }


def test_train_val_and_test_are_taken_as_they_are(tmp_path):
    write(tmp_path, {"train": 10, "dev": 4, "test": 6})
    check_splits(load(tmp_path), 10, 4, 6)
    (tmp_path / "test.parquet").unlink()
    data = load(tmp_path)
    check_splits(data, 8, 2, 4)
    assert data.notes == ("there is no test split: val is used as it, and validation is carved from train",)


def test_files_that_name_no_split_are_one_dataset(tmp_path):
    check_splits(load(write(tmp_path, {"0000": 20, "0001": 10})), 22, 2, 6)


def test_what_is_left_out_is_named(tmp_path):
    write(tmp_path, {"train": 20, "extra": 6, "more": 2})
    for name in ("README.md", "dataset_infos.json", ".gitattributes"):
        (tmp_path / name).write_text("{}")
    assert load(tmp_path).notes == (
        "2 Parquet files whose name says no split left out (such as extra.parquet)",
        "2 files are no Parquet files and left out: .json 1, .md 1 (such as README.md)",
    )


def test_several_datasets_in_a_folder_are_refused_by_name(tmp_path):
    write(tmp_path, {"de/train/0": 4, "en/train/0": 4, "fr/test/0": 4})
    assert f"holds 3 datasets: de, en, fr; name one, as in parquet:{tmp_path}/fr" in refused(tmp_path)
    write(tmp_path / "b", {"train": 4, "old/train": 4})
    assert "holds 2 datasets: the folder itself, old" in refused(tmp_path / "b")
    write(tmp_path / "c", {"one/0": 4, "two/0": 4})
    assert "holds 2 datasets: one, two" in refused(tmp_path / "c")
    check_splits(load(write(tmp_path / "d", {"en/train/0": 20})), 14, 2, 4)


@pytest.mark.parametrize("names", [("val", "validation"), ("val", "data/val-0"), ("train/0", "partial-train/0")])
def test_two_sets_of_files_for_a_split_are_refused_by_name(tmp_path, names):
    write(tmp_path, {"train" if "val" in names[0] else "test": 4, **dict.fromkeys(names, 4)})
    found = refused(tmp_path)
    assert "holds 2 sets of files for the split " in found
    assert all(f"{name}.parquet" in found for name in names)


def test_names_that_say_two_splits_are_refused(tmp_path):
    write(tmp_path, {"train/test-0": 4})
    assert "train/test-0.parquet: the names say two splits, train, test; rename" in refused(tmp_path)


def test_a_folder_without_training_files_is_refused(tmp_path):
    assert "holds no .parquet file" in refused(tmp_path)
    write(tmp_path, {"test": 4, "val": 4})
    assert "holds test.parquet, val.parquet but none to train on, called train or training" in refused(tmp_path)


def test_a_split_without_rows_is_refused_by_name(tmp_path):
    write(tmp_path, {"train": 20, "test": 0})
    assert f"{tmp_path}/test.parquet: no rows, so that the split test is empty" in refused(tmp_path)
    write(tmp_path, {"train": 0})
    assert "no rows, so that the split train is empty" in refused(tmp_path)
    write(tmp_path / "b", {"train-0": 0, "train-1": 20})
    check_splits(load(tmp_path / "b"), 14, 2, 4)


def test_columns_are_those_of_the_first_training_file(tmp_path):
    write(tmp_path, {"train": 20})
    table = labelled([0, 1] * 3, seed=500)
    pq.write_table(table.rename_columns(["image", "labels"]), tmp_path / "test.parquet")
    assert "test.parquet has no column 'label'; it has image, labels" in refused(tmp_path)
    pq.write_table(table.append_column("labels", pa.array([7] * 6)), tmp_path / "test.parquet")
    check_splits(load(tmp_path), 18, 2, 6)
