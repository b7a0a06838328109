"""Folders that are no classes: parts of one set, sites, folds, images beside masks."""

import functools

import numpy as np
import pytest
from PIL import Image

from tests.data import samples
from tests.data.samples import picture
from tests.data.test_folders import write_images
from tests.data.test_labelled import rows, write_flat, write_table

load, refused = (functools.partial(call, "imagefolder") for call in (samples.load, samples.refused))


def test_parts_beside_a_table_with_the_labels_are_no_classes(tmp_path):
    write_flat(tmp_path / "HAM_images_part_1", 0, 12)
    write_flat(tmp_path / "HAM_images_part_2", 12, 12)
    table = write_table(tmp_path / "HAM_metadata.csv", rows(0, 24, "{:04}"), "image_id,dx")
    said = refused(tmp_path)
    assert f"are HAM_images_part_1, HAM_images_part_2 classes? {table} names their images: --labels {table}" in said
    assert load(tmp_path, labels=table).class_names == ("a", "b")
    assert load(tmp_path, classes="outer").class_names == ("HAM_images_part_1", "HAM_images_part_2")


def test_a_table_that_says_what_the_folders_say_is_no_sign(tmp_path):
    write_flat(tmp_path / "cat", 0, 12)
    write_flat(tmp_path / "dog", 12, 12)
    write_table(tmp_path / "all.csv", [f"{i:04}.png,{int(i >= 12)},{i % 2}" for i in range(24)], "file,label,sex")
    assert load(tmp_path).class_names == ("cat", "dog")


def test_a_table_without_labels_is_no_sign(tmp_path):
    write_flat(tmp_path / "cat", 0, 12)
    write_flat(tmp_path / "dog", 12, 12)
    write_table(tmp_path / "sizes.csv", [f"{i:04}.png,{i}" for i in range(24)], "file,bytes")
    assert load(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("outer", [("fold1", "fold2"), ("40X", "100X", "200X")])
def test_folders_that_hold_folders_of_the_same_names_are_no_classes(tmp_path, outer):
    for seed, name in enumerate(outer):
        write_images(tmp_path / name, {"benign": 6, "malignant": 6}, 1000 * seed)
    said = refused(tmp_path)
    assert "hold folders of the same names (benign, malignant), as parts of one dataset do" in said
    assert "--set data.classes=inner reads those as the classes" in said
    data = load(tmp_path, classes="inner")
    assert data.class_names == ("benign", "malignant")
    assert sum(map(len, data.splits.values())) == 12 * len(outer)
    assert len(load(tmp_path, classes="outer").class_names) == len(outer)
    assert len(load(tmp_path, classes="path").class_names) == 2 * len(outer)


def test_a_site_may_lack_a_class(tmp_path):
    write_images(tmp_path / "clipart", {"a": 5, "b": 5, "c": 5})
    write_images(tmp_path / "sketch", {"a": 5, "b": 5, "c": 5}, 1000)
    write_images(tmp_path / "real", {"a": 5, "b": 5}, 2000)
    assert "hold folders of the same names (a, b, c)" in refused(tmp_path)


def test_folders_below_classes_that_differ_are_no_sign(tmp_path):
    write_images(tmp_path / "Apple", {"healthy": 6, "rust": 6})
    write_images(tmp_path / "Corn", {"healthy": 6, "blight": 6}, 1000)
    data = load(tmp_path)
    assert data.class_names == ("Apple", "Corn")
    assert data.notes == (
        "the classes are Apple, Corn, and folders below them are not told apart; --set data.classes=path makes "
        "Apple/healthy a class",
    )
    assert load(tmp_path, classes="path").class_names == ("Apple/healthy", "Apple/rust", "Corn/blight", "Corn/healthy")
    write_images(tmp_path / "beaker", {"2024": 8}, 3000)
    write_images(tmp_path / "flask", {"2024": 8}, 4000)
    assert len(load(tmp_path).class_names) == 4


@pytest.mark.parametrize(
    "names", [("images", "masks"), ("img", "SegmentationClass"), ("a", "a_gt"), ("scans", "other")]
)
def test_images_beside_masks_of_the_same_names_are_no_classes(tmp_path, names):
    for number in range(12):
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
        picture(number).save(tmp_path / names[0] / f"{number}.png")
        mask = Image.fromarray(np.asarray(picture(number).convert("L")) // 128 * 255)
        mask.save(tmp_path / names[1] / f"{number}.png")
    assert f"the images in {names[1]} look like masks of those in {names[0]}" in refused(tmp_path)
    assert load(tmp_path, classes="outer").class_names == tuple(sorted(names))


def test_classes_with_files_of_the_same_names_are_classes(tmp_path):
    assert load(write_images(tmp_path, {"cat": 12, "dog": 12})).notes == ()


def test_the_folder_that_holds_the_classes_is_named(tmp_path):
    write_images(tmp_path / "archive" / "archive", {"a": 8, "b": 8})
    inner = tmp_path / "archive" / "archive"
    assert f"is the dataset {inner}, with a, b?" in refused(tmp_path)
    assert f"is the dataset the folder above, {inner}, with a, b?" in refused(inner / "a")


def test_a_table_beside_images_without_folders_is_named(tmp_path):
    write_flat(tmp_path / "images", 0, 12)
    table = write_table(tmp_path / "labels.csv", rows(0, 12))
    assert f"--labels {table} reads them from there" in refused(tmp_path)


def test_of_several_tables_that_of_the_most_images_is_named(tmp_path):
    write_flat(tmp_path / "images", 0, 18)
    write_table(tmp_path / "test.csv", rows(12, 6))
    table = write_table(tmp_path / "train.csv", rows(0, 12))
    assert f"--labels {table} reads them from there" in refused(tmp_path)
