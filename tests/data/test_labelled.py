"""Images whose classes a table says, as half of all small datasets come."""

import functools
import json

import pytest

from tests.data import samples
from tests.data.samples import check_splits, picture

load, refused = (functools.partial(call, "imagefolder") for call in (samples.load, samples.refused))
CLASSES = ("a", "b")


def write_flat(folder, start, count, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        picture(number).save(folder / f"{number:04}{ending}")


def write_table(path, lines, header="file,label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def rows(start, count, form="{:04}.png"):
    return [f"{form.format(number)},{CLASSES[number % 2]}" for number in range(start, start + count)]


def truth(split):
    """Whether each image has the label of its number."""
    numbers = [int(split.source.encoded[i].stem) for i in split.indices]
    return split.labels.tolist() == [number % 2 for number in numbers]


@pytest.mark.parametrize(
    "form",
    ["{:04}.png", "{:04}", "images/{:04}.png", "./images/{:04}.png", "images\\{:04}.png", "/old/place/{:04}.png"],
)
def test_a_file_is_named_by_its_path_its_name_or_its_stem(tmp_path, form):
    write_flat(tmp_path / "images", 0, 20)
    table = write_table(tmp_path / "labels.csv", rows(0, 20, form))
    data = load(tmp_path, labels=table)
    check_splits(data, 14, 2, 4)
    assert data.class_names == CLASSES
    assert all(map(truth, data.splits.values()))
    assert data.notes == ()


def test_the_tables_path_alone_is_a_dataset(tmp_path):
    write_flat(tmp_path, 0, 20)
    table = write_table(tmp_path / "labels.csv", rows(0, 20))
    assert all(map(truth, load(table).splits.values()))


def test_numbers_that_begin_with_zeros_stay_names(tmp_path):
    write_flat(tmp_path, 7, 20)
    table = write_table(tmp_path / "l.tsv", [line.replace(",", "\t") for line in rows(7, 20, "{:04}")], "id\tdx")
    assert all(map(truth, load(tmp_path, labels=table).splits.values()))


@pytest.mark.parametrize(
    ("header", "kwargs"),
    [
        ("Image Index,Finding Labels,age", {}),
        (" file , label ,age", {}),
        ("file,kind,age", {}),  # the only one that repeats its values
        ("label,kind,age", {"image_column": "label", "label_column": "kind"}),
    ],
)
def test_columns_are_found_or_set(tmp_path, header, kwargs):
    write_flat(tmp_path, 0, 20)
    table = write_table(tmp_path / "t.csv", [f"{line},{20 + i}" for i, line in enumerate(rows(0, 20))], header)
    assert all(map(truth, load(tmp_path, labels=table, **kwargs).splits.values()))


@pytest.mark.parametrize(
    ("column", "train", "test"),
    [("split", "train", "test"), ("is_test", "0", "1"), ("is_train", "True", "False"), ("Subset", "Training", "eval")],
)
def test_a_column_says_the_splits(tmp_path, column, train, test):
    write_flat(tmp_path, 0, 30)
    lines = [f"{line},{test if i >= 22 else train}" for i, line in enumerate(rows(0, 30))]
    data = load(tmp_path, labels=write_table(tmp_path / "t.csv", lines, f"file,label,{column}"))
    assert [int(path.stem) for path in data.test.source.encoded] == list(range(22, 30))
    assert data.origins["test"] == "t.csv"


def test_the_folders_of_the_images_say_the_splits(tmp_path):
    write_flat(tmp_path / "train_images", 0, 20)
    write_flat(tmp_path / "test_images", 20, 10)
    table = write_table(tmp_path / "all.csv", rows(0, 30))
    assert len(load(tmp_path, labels=table).test) == 10
    data = load(tmp_path, labels=write_table(tmp_path / "train.csv", rows(0, 20)))  # Kaggle's
    check_splits(data, 14, 2, 4)
    assert data.notes == ("10 images without a row left out, in test_images (such as test_images/0020.png)",)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_hugging_faces_tables_beside_the_images_are_read_by_themselves(tmp_path, ending):
    for split, start, count in (("train", 0, 20), ("test", 20, 10)):
        write_flat(tmp_path / split, start, count)
        if ending == "csv":
            write_table(tmp_path / split / "metadata.csv", rows(start, count), "file_name,label")
        else:
            text = [{"file_name": f"{i:04}.png", "label": CLASSES[i % 2]} for i in range(start, start + count)]
            (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, text)))
    data = load(tmp_path)
    check_splits(data, 18, 2, 10)
    assert all(map(truth, data.splits.values()))
    assert data.origins["test"].startswith(f"test/metadata.{ending}, train/metadata.{ending}")


def test_whole_numbers_are_classes_in_their_order(tmp_path):
    write_flat(tmp_path, 0, 60)
    table = write_table(tmp_path / "t.csv", [f"{i:04},{i % 12}" for i in range(60)])
    assert load(tmp_path, labels=table).class_names == tuple(map(str, range(12)))


def test_what_is_left_out_is_said(tmp_path):
    write_flat(tmp_path, 0, 22)
    lines = [*rows(0, 20), *rows(0, 3), "0020.png,", "9999.png,a"]
    data = load(tmp_path, labels=write_table(tmp_path / "t.csv", lines))
    assert data.notes == (
        "1 row of t.csv left out: no such image (9999.png)",
        "1 row of t.csv without a label left out",
        "3 rows repeated another and left out",
        f"2 images without a row left out, in {tmp_path} (such as 0020.png)".replace(f"{tmp_path} ", ". "),
    )


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (["0001.png,a", "0001.png,b"], "file,label", r"t.csv, row 1: 0001.png has two labels, a in .*row 0 and b here"),
        (["x.png,a", "y.png,b"], "file,label", "no column of file, label names images in .* such as 0000.png"),
        (rows(1, 9), "0000.png,a", "has no line with the columns' names before its rows, as in file,label"),
        (["0001.png,3,4", "0002.png,3,4"], "file,u,v", "which column has the classes? --set data.label_column="),
        (["0001.png,a,train", "0002.png,b,"], "file,label,split", "row 1 says no split (train, val or test)"),
        (["0001.png,a,train", "0002.png,c,test"], "file,label,split", "row 1: the class c has no training image"),
        ([], "file,label", "t.csv has no rows"),
    ],
)
def test_tables_that_cannot_be_read_are_one_line(tmp_path, lines, header, message):
    write_flat(tmp_path, 0, 10)
    said = refused(tmp_path, labels=write_table(tmp_path / "t.csv", lines, header))
    parts = message.split(".*")
    assert all(part in said for part in parts), said


def test_a_name_of_two_images_and_other_files_are_refused(tmp_path):
    write_flat(tmp_path / "x", 0, 4)
    write_flat(tmp_path / "y", 0, 4)
    table = write_table(tmp_path / "t.csv", rows(0, 4))
    assert "0000.png is the name of 2 images: x/0000.png, y/0000.png; name them by their path" in refused(
        tmp_path, labels=table
    )
    write_table(table, [*rows(0, 4, "x/{:04}.png"), *rows(0, 4, "y/{:04}.png")])
    assert len(load(tmp_path, labels=table).train) > 0
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    assert "a table of labels is one of .csv, .tsv, .jsonl" in refused(tmp_path, labels=tmp_path / "t.xlsx")
    (tmp_path / "u.csv").write_bytes("file,label\ncaf\xe9.png,a\n".encode("latin-1"))
    assert "u.csv cannot be read as a table in UTF-8" in refused(tmp_path, labels=tmp_path / "u.csv")
    assert "cannot be read: No such file" in refused(tmp_path, labels=tmp_path / "gone.csv")


def test_labels_of_several_classes_are_told(tmp_path):
    write_flat(tmp_path, 0, 20)
    table = write_table(tmp_path / "t.csv", [f"{i:04},{'A|B' if i % 2 else 'A'}" for i in range(20)])
    data = load(tmp_path, labels=table)
    assert data.class_names == ("A", "A|B")
    assert data.notes == ("labels of several classes, as A|B, are each read as a class of its own",)


# A column for each class, and a table for each split ------------------------------------------------------------------


def one_hot(start, count, classes=CLASSES):
    """Rows as ISIC's: the image, and a 1.0 for its class."""
    return [
        ",".join([f"{number:04}", *("1.0" if place == number % 2 else "0.0" for place in range(len(classes)))])
        for number in range(start, start + count)
    ]


def test_a_column_for_each_class_is_read(tmp_path):
    write_flat(tmp_path / "images", 0, 20)
    table = write_table(tmp_path / "labels.csv", one_hot(0, 20, ("a", "b", "UNK")), "image,a,b,UNK")
    data = load(tmp_path, labels=table)
    assert data.class_names == CLASSES
    assert all(map(truth, data.splits.values()))
    assert data.notes == ("the columns a, b, UNK are the classes, with a 1 for a row's own",)
    assert load(tmp_path, labels=table, label_column="a, b").class_names == CLASSES


def test_rows_of_several_classes_or_of_none_are_named(tmp_path):
    write_flat(tmp_path, 0, 20)
    lines = one_hot(0, 20)
    for wrong, said in (
        ("0007,1,1", "row 7 is of 2 classes (a, b): an image has one class here; --set data.label_column names"),
        ("0007,0,0", "row 7 is of no class"),
    ):
        table = write_table(tmp_path / "l.csv", [*lines[:7], wrong, *lines[8:]], "image,a,b")
        assert said in refused(tmp_path, labels=table)
    table = write_table(tmp_path / "l.csv", [*lines[:7], "0007,2,0", *lines[8:]], "image,a,b")
    assert "row 7 has '2' for a, which is no 0 or 1" in refused(tmp_path, labels=table, label_column="a,b")
    assert "has no column 'c' (data.label_column)" in refused(tmp_path, labels=table, label_column="a,c")


def test_a_table_for_each_split_is_read_from_their_folder(tmp_path):
    for split, start, count in (("train", 0, 20), ("test", 0, 8)):  # of the same names
        write_flat(tmp_path / f"{split}_images", start, count)
        write_table(tmp_path / f"{split}.csv", rows(start, count))
    data = load(tmp_path, labels=tmp_path)
    assert [len(split) for split in data.splits.values()] == [18, 2, 8]
    assert all(map(truth, data.splits.values()))
    assert {path.parent.name for path in files(data.test)} == {"test_images"}
    assert {path.parent.name for path in files(data.train)} == {"train_images"}


def files(split):
    return [split.source.encoded[i] for i in split.indices]


def test_the_test_table_of_a_competition_has_no_labels(tmp_path):
    write_flat(tmp_path / "images", 0, 28)
    write_table(tmp_path / "train.csv", rows(0, 20))
    write_table(tmp_path / "test.csv", [f"{number:04}.png" for number in range(20, 28)], "file")
    data = load(tmp_path, labels=tmp_path)
    assert "test.csv has no labels and is left out" in data.notes
    assert sum(map(len, data.splits.values())) == 20
    alone = load(tmp_path, labels=tmp_path / "train.csv")
    assert any(note.startswith("test.csv beside train.csv not read: --labels ") for note in alone.notes)
    (tmp_path / "train.csv").unlink()
    assert "has no table called train.csv" in refused(tmp_path, labels=tmp_path)
