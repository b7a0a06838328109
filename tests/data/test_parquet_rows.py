"""Labels and images of every type that Parquet files hold them in."""

import datetime
import decimal
import functools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import samples
from tests.data.samples import check_splits, encode, labelled, picture
from tvt_ray.data.decoded import verify_images
from tvt_ray.errors import UsageError

load, refused = (functools.partial(call, "parquet") for call in (samples.load, samples.refused))


@pytest.fixture
def write(tmp_path):
    """A table as a file; several become train-0, train-1 and so on."""

    def write(*tables):
        for number, table in enumerate(tables):
            pq.write_table(table, tmp_path / f"train-{number}.parquet")
        return tmp_path

    return write


# Labels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        ([0, 1], pa.int64(), ("0", "1")),
        ([0, 1], pa.uint8(), ("0", "1")),
        ([2**64 - 1, 5], pa.uint64(), ("5", str(2**64 - 1))),
        ([0, 1_000_000], pa.int32(), ("0", "1000000")),
        ([-1, 7], pa.int16(), ("-1", "7")),
        ([2.0, 1.0], pa.float64(), ("1", "2")),
        ([2.0, 1.0], pa.float16(), ("1", "2")),
        ([decimal.Decimal(2), decimal.Decimal(1)], pa.decimal128(5, 2), ("1", "2")),
        ([True, False], pa.bool_(), ("False", "True")),
        (["x", "y"], pa.string(), ("x", "y")),
        (["x", "y"], pa.large_string(), ("x", "y")),
        (["x", "y"], pa.string_view(), ("x", "y")),
        (["x", "y"], pa.dictionary(pa.int8(), pa.string()), ("x", "y")),
        ([3, 5], pa.dictionary(pa.int8(), pa.int64()), ("3", "5")),
        ([b"x", b"caf\xe9"], pa.binary(), (r"caf\xe9", "x")),
        (["10", "9"], pa.string(), ("10", "9")),
        ([10, 9], pa.int64(), ("9", "10")),
    ],
    ids=str,
)
def test_labels_of_every_type_are_classes_named_by_them(write, labels, kind, names):
    data = load(write(labelled(labels * 10, label_type=kind)))
    check_splits(data, 14, 2, 4)
    assert data.class_names == names
    order = [name if isinstance(name, str) else name.decode("latin1") for name in map(_plain, labels)]
    images = {encode(picture(i)): order[i % 2] for i in range(20)}
    for split in data.splits.values():
        for place in range(len(split)):
            content = split.source.encoded[split.indices[place]]
            assert images[content].replace("é", r"\xe9") == names[split.labels[place]]


def _plain(label):
    """As a class is called."""
    return (
        label if isinstance(label, bytes) else str(int(label) if isinstance(label, float | decimal.Decimal) else label)
    )


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([0, 1, 1.5, 0], pa.float64(), "row 2: a label is a whole number or a text; got 1.5"),
        ([0, float("nan")], pa.float32(), "row 1: a label is a whole number or a text; got nan"),
        ([0, float("inf")], pa.float32(), "row 1: a label is a whole number or a text; got inf"),
        (["x", None, "y"], pa.string(), "row 1: there is no label"),
        ([0, 1, None], pa.int64(), "row 2: there is no label"),
        ([None, None], pa.null(), "row 0: there is no label"),
        (["x", None], pa.dictionary(pa.int8(), pa.string()), "row 1: there is no label"),
        ([[0], [1]], pa.list_(pa.int64()), "labels are whole numbers, texts, bytes or truth values; got list<"),
        ([datetime.date(2020, 1, 1)] * 2, pa.date32(), "texts, bytes or truth values; got date32"),
    ],
    ids=str,
)
def test_labels_that_are_none_are_refused_naming_file_and_row(write, labels, kind, message):
    found = refused(write(labelled(labels, label_type=kind)))
    assert "train-0.parquet" in found
    assert message in found


def test_names_in_the_metadata_name_numbers_texts_and_truth_values(write):
    for labels in ([0, 1], ["p", "q"], [False, True], [0.0, 1.0]):
        data = load(write(labelled(labels * 10, {"class_names": "p,q"})))
        check_splits(data, 14, 2, 4)
        assert data.class_names == ("p", "q")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 5], "row 2: label 5 is none of the classes in the metadata: 0 to 1"),
        ([-1, 1, 0], "row 0: label -1 is none of the classes in the metadata: 0 to 1"),
        (["p", "z"], "row 1: label 'z' is none of the classes in the metadata: p, q"),
    ],
)
def test_labels_without_a_name_are_refused_naming_file_and_row(write, labels, message):
    assert f"train-0.parquet, {message}" in refused(write(labelled(labels, {"class_names": "p,q"})))


def test_labels_that_no_training_image_has_are_refused_by_name(write):
    folder = write(labelled([0, 1] * 5))
    pq.write_table(labelled([0, 7], seed=100), folder / "test.parquet")
    assert "test.parquet, row 1: label 7 is none of the classes in the training files: 0, 1" in refused(folder)


def test_names_without_training_images_and_names_twice_are_refused(write):
    assert "no training images of the class(es) r" in refused(write(labelled([0, 1] * 5, {"class_names": "p,q,r"})))
    assert "more than one class called p" in refused(write(labelled([0, 1] * 5, {"class_names": "p,p"})))


def test_a_single_class_is_refused(write):
    assert "has the single class 3; classification needs at least two" in refused(write(labelled([3] * 10)))


def test_shards_of_other_integer_types_are_one(write):
    folder = write(*[labelled([0, 4] * 5, label_type=kind, seed=i) for i, kind in ((0, pa.int32()), (50, pa.int64()))])
    data = load(folder)
    check_splits(data, 14, 2, 4)
    assert data.class_names == ("0", "4")


def test_shards_of_numbers_and_texts_are_refused(write):
    found = refused(write(labelled([0, 1]), labelled(["a", "b"])))
    assert "whole numbers in " in found
    assert "train-1.parquet; make them one" in found


def test_files_that_name_the_classes_otherwise_are_refused(write):
    folder = write(labelled([0, 1] * 5, {"class_names": "p,q"}))
    pq.write_table(labelled([0, 1], {"class_names": "q,p"}), folder / "test.parquet")
    assert "test.parquet names the classes q, p; the first file has p, q" in refused(folder)


# Images ---------------------------------------------------------------------------------------------------------------


def with_images(images, kind=None):
    """Labels 0 and 1 in turn."""
    return pa.table({"image": pa.array(images, kind), "label": [i % 2 for i in range(len(images))]})


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())],
    ids=str,
)
def test_encoded_images_of_every_type_are_read(write, kind):
    data = load(write(with_images([encode(picture(i)) for i in range(20)], kind)))
    check_splits(data, 14, 2, 4)
    verify_images(data)


@pytest.mark.parametrize(
    "row",
    [
        lambda path, content: {"bytes": None, "path": path},
        lambda path, content: {"path": path},
        lambda path, content: path,
    ],
    ids=["struct without bytes", "struct with a path alone", "text"],
)
def test_images_that_are_given_as_paths_are_read_from_the_files_folder(write, tmp_path, row):
    (tmp_path / "photos").mkdir()
    for i in range(20):
        picture(i).save(tmp_path / "photos" / f"{i}.png")
    data = load(write(with_images([row(f"photos/{i}.png", None) for i in range(20)])) / "train-0.parquet")
    check_splits(data, 14, 2, 4)
    assert data.train.source.encoded[0] == tmp_path / "photos" / "0.png"
    (tmp_path / "photos" / "3.png").unlink()
    assert "photos/3.png is listed but not there" in refused(tmp_path / "train-0.parquet")


def test_bytes_and_paths_may_be_mixed_and_bytes_are_preferred(write, tmp_path):
    for i in range(10):
        picture(i).save(tmp_path / f"{i}.png")
    rows = [{"bytes": None if i < 10 else encode(picture(i)), "path": f"{i}.png"} for i in range(20)]
    data = load(write(with_images(rows)))
    check_splits(data, 14, 2, 4)
    assert data.notes == ()
    picture(99).save(tmp_path / "photo.png")
    assert load(tmp_path).notes == ("1 file is no Parquet file and left out: .png 1 (such as photo.png)",)
    (tmp_path / "3.png").unlink()
    assert "train-0.parquet, row 3: the image " in refused(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([b"x", None, b"y"], "row 1: there is no image"),
        ([b"x", b""], "row 1: there is no image"),
        ([{"bytes": b"x", "path": None}, None], "row 1: there is no image"),
        ([{"bytes": b"x", "path": None}, {"bytes": None, "path": None}], "row 1: there is no image"),
        ([None, None], "row 0: there is no image"),
        ([{"bytes": None, "path": None}] * 2, "row 0: there is no image"),
        (["a.png", ""], "row 1: there is no image"),
        (
            [1.5, 2.5],
            "images are encoded bytes, a file's path as text, a struct with a field `bytes` or `path`, or pixels",
        ),
        ([1, 2], "got int64"),
        ([[1, 2], [3, 4]], "row 0: no image: a flat list of 2 numbers has no shape: nested lists have one"),
        ([[[1, 2], [3, 400]]] * 2, "row 0: no image: pixels are whole numbers from 0 to 255"),
        ([[[0.5, 1.0]]] * 2, "row 0: no image: pixels are whole numbers from 0 to 255; got float64"),
        ([{"pixels": b"x"}] * 2, "got struct<pixels: binary>"),
    ],
    ids=str,
)
def test_images_that_are_none_are_refused_naming_file_and_row(write, images, message):
    found = refused(write(with_images(images)))
    assert "train-0.parquet" in found
    assert message in found


def test_corrupt_images_are_refused_naming_file_and_row(write):
    path = write(with_images([encode(picture(i)) for i in range(19)] + [b"no image"]))
    with pytest.raises(UsageError, match=r"corrupt image .*train-0\.parquet, row 19: "):
        verify_images(load(path))


def test_a_column_that_is_there_twice_is_refused(write):
    table = pa.table([pa.array([b"x"]), pa.array([0]), pa.array([1])], names=["image", "label", "label"])
    assert "has more than one column 'label'" in refused(write(table))


def test_metadata_of_hugging_face_is_that_of_the_column(write):
    """The names of fine_label were once put on label."""
    marked = {"features": {"fine_label": {"names": ["asp", "bee"]}, "label": {"names": ["animal", "plant"]}}}
    table = labelled([0, 1] * 10).append_column("fine_label", pa.array([1, 0] * 10))
    path = write(table.replace_schema_metadata({"huggingface": json.dumps({"info": marked})}))
    assert load(path).class_names == ("animal", "plant")
    assert load(path, label_column="fine_label").class_names == ("asp", "bee")
