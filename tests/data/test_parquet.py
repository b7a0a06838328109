"""Which Parquet files belong to which split, in the layouts of Hugging Face and of people, which the tests write."""

import functools
import json
import unicodedata

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


# What columns, folders and numbers in names say -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "train", "test"), [("split", "train", "test"), ("is_test", False, True), ("subset", "Training", "EVAL")]
)
@pytest.mark.parametrize("file", ["photos.parquet", "train.parquet"])
def test_a_column_that_says_the_split_is_followed(tmp_path, name, train, test, file):
    table = labelled([0, 1] * 15).append_column(name, pa.array([train] * 22 + [test] * 8))
    pq.write_table(table, tmp_path / file)
    data = load(tmp_path)
    check_splits(data, 20, 2, 8)
    kept = [table["image"][row].as_py()["bytes"] for row in range(22, 30)]
    assert [data.test.source.encoded[i] for i in data.test.indices] == kept
    assert data.origins["test"] == f"the column {name}"


def test_a_fold_that_is_a_number_says_no_split(tmp_path):
    pq.write_table(labelled([0, 1] * 15).append_column("fold", pa.array([0, 1, 2] * 10)), tmp_path / "t.parquet")
    check_splits(load(tmp_path), 22, 2, 6)


def test_a_column_and_a_name_that_say_two_splits_are_refused(tmp_path):
    for split, column in (("train", ["train"] * 20), ("test", ["test"] * 3 + ["train"] * 7)):
        table = labelled([0, 1] * (len(column) // 2), seed=len(column)).append_column("split", pa.array(column))
        pq.write_table(table, tmp_path / f"{split}.parquet")
    assert "test.parquet, row 3: split says train, the file's name test" in refused(tmp_path)


def test_a_row_that_says_no_split_among_others_is_refused(tmp_path):
    table = labelled([0, 1] * 5).append_column("split", pa.array(["train"] * 6 + ["extra"] + ["test"] * 3))
    pq.write_table(table, tmp_path / "t.parquet")
    assert "t.parquet, row 6: split extra says neither train, val nor test, which other rows say" in refused(tmp_path)


def test_files_that_the_names_miss_are_told(tmp_path):
    write(tmp_path, {"train-00000-of-00003": 20, "test-00000-of-00001": 4})
    assert (
        "train has 1 of 3 files, as train-00000-of-00003.parquet is called: others are not here" in load(tmp_path).notes
    )


def test_one_file_twice_is_refused(tmp_path):
    write(tmp_path, {"train-00000-of-00001": 20, "train-00000-of-00001 (1)": 20})
    assert "holds one shard twice: train-00000-of-00001 (1).parquet, train-00000-of-00001.parquet" in refused(tmp_path)


def test_folders_say_labels_and_splits_as_hive_and_spark_write_them(tmp_path):
    for number, (split, label, count) in enumerate(
        [("train", "red fox", 12), ("train", "owl", 12), ("test", "red fox", 4), ("test", "owl", 4)]
    ):
        folder = tmp_path / f"split={split}" / f"label={label.replace(' ', '%20')}" / "date=2024-01-02"
        folder.mkdir(parents=True)
        pq.write_table(labelled([0] * count, seed=100 * number).drop_columns(["label"]), folder / "part-0.parquet")
    data = load(tmp_path)
    check_splits(data, 22, 2, 8)
    assert data.class_names == ("owl", "red fox")


@pytest.mark.parametrize("nothing", [-1, None])
def test_test_images_without_labels_are_left_out(tmp_path, nothing):
    pq.write_table(labelled([0, 1] * 10), tmp_path / "train.parquet")
    pq.write_table(labelled([nothing] * 10, label_type=pa.int64(), seed=50), tmp_path / "test.parquet")
    data = load(tmp_path)
    check_splits(data, 14, 2, 4)
    assert data.notes == ("test.parquet left out: no row has a label",)
    pq.write_table(labelled([nothing] * 10, label_type=pa.int64()), tmp_path / "train.parquet")
    assert "train.parquet, row 0: there is no label" in refused(tmp_path)


def test_names_of_the_classes_may_stand_in_the_test_file_alone(tmp_path):
    meta = {b"class_names": b"disc, rect"}
    pq.write_table(labelled([0, 1] * 10), tmp_path / "train.parquet")
    pq.write_table(labelled([0, 1] * 3, meta, seed=50), tmp_path / "test.parquet")
    assert load(tmp_path).class_names == ("disc", "rect")


def test_one_class_under_two_names_is_asked_for(tmp_path):
    pq.write_table(labelled(["cat", "dog", "Cat "] * 10), tmp_path / "train.parquet")
    pq.write_table(labelled(["CAT", "dog"] * 3, seed=50), tmp_path / "test.parquet")
    assert "'cat' and 'Cat ' differ in case or blanks alone" in refused(tmp_path)
    data = load(tmp_path, merge_names=True)
    assert data.class_names == ("cat", "dog")
    assert data.test.labels.tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("iVBORw0KGgo" + "A" * 5000, r"row 0: iVBORw0KGgoAAAAAAAAA… is no path; where it is base64, decode it first"),
        ("https://example.org/a.png", "row 0 names https://example.org/a.png: images are read from a disk"),
    ],
)
def test_texts_that_are_no_paths_are_not_repeated_whole(tmp_path, place, message):
    pq.write_table(pa.table({"image": [place] * 20, "label": [0, 1] * 10}), tmp_path / "train.parquet")
    said = refused(tmp_path)
    assert message in said
    assert len(said) < 400


def test_names_in_the_metadata_and_texts_in_rows_may_be_of_two_forms_of_unicode(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "\u00e9p\u00e9e") for form in ("NFC", "NFD"))
    pq.write_table(labelled([nfc, "arc"] * 10, {b"class_names": json.dumps([nfd, "arc"])}), tmp_path / "train.parquet")
    data = load(tmp_path)
    assert data.class_names == (nfc, "arc")
    check_splits(data, 14, 2, 4)
