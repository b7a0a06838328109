"""Image folders in the layouts that people keep them in, which the tests write."""

import functools
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.data import samples
from tests.data.samples import check_splits, picture, write_class_folders
from tvt_ray.data.decoded import verify_images
from tvt_ray.data.layout import WORDS
from tvt_ray.errors import UsageError

load, refused = (functools.partial(call, "imagefolder") for call in (samples.load, samples.refused))


def write_splits(path, **counts):
    """A split folder for each name, with images of its own of the classes a and b."""
    for number, (name, count) in enumerate(counts.items()):
        write_images(path / name, {"a": count, "b": count}, 1000 * number)
    return path


def write_images(path, counts, seed=0):
    for label, (name, count) in enumerate(counts.items()):
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(seed + 100 * label + i).save(path / name / f"{i}.png")
    return path


def files(split):
    return [split.source.encoded[i] for i in split.indices]


# PATH/CLASS -----------------------------------------------------------------------------------------------------------


def test_image_folder_without_splits(tmp_path):
    data = load(write_class_folders(tmp_path / "d", ["cat", "dog"], 20))
    check_splits(data, 29, 3, 8)
    assert data.class_names == ("cat", "dog")
    assert data.notes == ()
    assert data.origins == {"test": "carved: 20% of the images", "val": "carved: 10% of the training images"}


def test_a_class_called_train_is_a_class(tmp_path):
    data = load(write_class_folders(tmp_path, ["car", "train", "Test drive"], 10))
    assert data.class_names == ("Test drive", "car", "train")
    assert data.notes == (
        "folder Test drive is read as a class: it holds images, no class folders",
        "folder train is read as a class: it holds images, no class folders",
    )


def test_images_in_folders_below_a_class_are_of_that_class(tmp_path):
    write_images(tmp_path, {"a": 4, "a/deep/er": 4, "b": 8})
    data = load(tmp_path)
    assert sum(map(len, data.splits.values())) == 16
    assert np.bincount(np.concatenate([split.labels for split in data.splits.values()])).tolist() == [8, 8]


def test_flat_folders_that_are_all_called_like_splits_hold_no_classes(tmp_path):
    write_class_folders(tmp_path, ["train", "test"], 5)
    assert "no class folders are in test, train, so that the images have no classes" in refused(tmp_path)


# PATH/SPLIT/CLASS -----------------------------------------------------------------------------------------------------


def test_image_folder_with_train_and_val_tests_on_val(tmp_path):
    data = load(write_splits(tmp_path, train=10, val=3))
    check_splits(data, 18, 2, 6)
    assert data.notes == ("there is no test split: val is used as it, and validation is carved from train",)
    assert data.origins == {"train": "train/", "test": "val/", "val": "carved: 10% of the training images"}
    write_images(tmp_path / "test", {"a": 4, "b": 4}, 5000)
    data = load(tmp_path)
    check_splits(data, 20, 6, 8)
    assert (data.notes, data.origins) == ((), {"train": "train/", "val": "val/", "test": "test/"})


@pytest.mark.parametrize("train", WORDS["train"])
@pytest.mark.parametrize(("val", "test"), [*zip(WORDS["val"], [*WORDS["test"]] * 2, strict=False)])
def test_splits_are_called_as_people_call_them(train, val, test, tmp_path):
    data = load(write_splits(tmp_path, **{train.title(): 3, f"my_{val}": 2, f"{test.upper()}-images": 1}))
    check_splits(data, 6, 4, 2)
    assert data.origins == {"train": f"{train.title()}/", "val": f"my_{val}/", "test": f"{test.upper()}-images/"}


def test_a_folder_beside_the_splits_is_left_out_by_name(tmp_path):
    write_splits(tmp_path, train=5, test=2, extra=3)
    write_images(tmp_path, {"unlabeled": 4, "docs": 0}, 9000)
    shutil.move(tmp_path / "unlabeled", tmp_path / "val_unlabeled")
    data = load(tmp_path)
    check_splits(data, 8, 2, 4)
    assert data.notes == (
        "folder docs left out: its name says no split",
        "folder extra with 6 images left out: its name says no split",
        "folder val_unlabeled with 4 images left out: no class folders are in it",
    )


def test_images_and_other_files_that_belong_to_no_class_are_left_out_by_name(tmp_path):
    write_splits(tmp_path, train=5, test=2)
    for name in ("0.png", "train/1.png", "train/2.png"):
        picture(7).save(tmp_path / name)
    for name in ("README.md", "train/a/notes.txt", "test/b/IMG_1.RAW", ".DS_Store", "train/a/._0.png"):
        (tmp_path / name).write_text("text")
    data = load(tmp_path)
    check_splits(data, 8, 2, 4)
    assert data.notes == (
        "1 image in no class folder left out (such as 0.png)",
        "2 images in no class folder left out (such as train/1.png)",
        "3 files are no images and left out: .md 1, .raw 1, .txt 1 (such as README.md)",
    )


def test_two_folders_for_one_split_are_refused_by_name(tmp_path):
    write_splits(tmp_path, train=5, val=2, validation=2)
    assert "has 2 folders for the split val: val, validation; keep one" in refused(tmp_path)


def test_splits_without_one_to_train_on_are_refused(tmp_path):
    write_splits(tmp_path, my_val=2, test=2)
    assert "has the split my_val (val), test (test) but none to train on, called train or training" in refused(tmp_path)


def test_a_split_without_images_is_refused_by_name(tmp_path):
    write_splits(tmp_path, train=5)
    (tmp_path / "test" / "a").mkdir(parents=True)
    assert f"{tmp_path}/test holds no images" in refused(tmp_path)


def test_one_split_beside_a_folder_of_the_same_classes_is_refused(tmp_path):
    """It may be a split of another name, or train may be a class."""
    write_splits(tmp_path, train=5, gallery=5)
    assert "train and " in refused(tmp_path)
    assert "hold folders of one name (a, b)" in refused(tmp_path)


def test_classes_that_train_lacks_are_refused_by_name(tmp_path):
    write_images(tmp_path / "train", {"a": 10, "b": 10})
    write_images(tmp_path / "test", {"a": 3, "c": 3}, 500)
    assert f"{tmp_path}/test has the class c, which {tmp_path}/train lacks" in refused(tmp_path)
    assert "train has a, b" in refused(tmp_path)


def test_a_class_that_a_given_split_lacks_is_said(tmp_path):
    write_images(tmp_path / "train", {"a": 6, "b": 6})
    write_images(tmp_path / "test", {"b": 3, "a": 0}, 500)
    data = load(tmp_path)
    assert data.notes == ("test has no images of a",)
    assert set(data.test.labels) == {1}


def test_a_class_without_training_images_is_refused_by_name(tmp_path):
    write_images(tmp_path / "train", {"a": 6, "b": 6, "c": 0})
    write_images(tmp_path / "test", {"a": 3, "b": 3, "c": 3}, 500)
    assert f"{tmp_path}/train: no images in the class folder(s) c; images end in .jpg" in refused(tmp_path)


# PATH/CLASS/SPLIT -----------------------------------------------------------------------------------------------------


def test_splits_within_each_class_are_kept_apart(tmp_path):
    for number, split in enumerate(("training", "valid", "Test")):
        for label, name in enumerate(("cat", "dog")):
            write_images(tmp_path / name, {split: 4 - number}, 100 * number + 1000 * label)
    data = load(tmp_path)
    check_splits(data, 8, 6, 4)
    assert data.class_names == ("cat", "dog")
    assert all(file.parts[-2] == "Test" for file in files(data.test))
    assert data.origins == {split: f"{split} folders in each class" for split in ("train", "val", "test")}
    assert data.notes == ()


def test_splits_within_some_classes_alone_are_said_and_not_kept_apart(tmp_path):
    write_images(tmp_path, {"car": 8, "engine/train": 5, "engine/wagon": 5})
    data = load(tmp_path)
    assert data.notes == ("5 images in folders like engine/train are not kept apart as a split",)
    assert sum(map(len, data.splits.values())) == 18


def test_classes_without_a_training_folder_are_refused_by_name(tmp_path):
    write_images(tmp_path, {"cat/train": 3, "cat/test": 3, "dog/test": 3})
    assert "no images for training in the class folder(s) dog" in refused(tmp_path)


# Folders as they are --------------------------------------------------------------------------------------------------


def test_broken_image_folders_are_refused_by_name(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    (folder / "empty").mkdir()
    assert "no images in the class folder(s) empty; images end in .jpg, .png" in refused(folder)
    (folder / "empty" / "1.raw").touch()
    assert "no images in the class folder(s) empty (but empty/1.raw); " in refused(folder)
    shutil.rmtree(folder / "empty")
    broken = folder / "b" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UsageError, match=r"corrupt image .*b/3\.png"):
        verify_images(load(folder))
    picture(7777).save(broken)
    verify_images(load(folder))
    (tmp_path / "none").mkdir()
    assert "no class folders" in refused(tmp_path / "none")
    assert "d/a/0.png is no folder" in refused(folder / "a" / "0.png")


def test_a_single_class_is_refused_and_a_dataset_one_folder_down_is_found(tmp_path):
    write_class_folders(tmp_path / "d", ["a"], 10)
    assert "d has the single class a; classification needs at least two" in refused(tmp_path / "d")
    write_class_folders(tmp_path / "e" / "photos", ["cat", "dog"], 10)
    assert f"is the dataset {tmp_path}/e/photos, with cat, dog?" in refused(tmp_path / "e")
    write_splits(tmp_path / "f" / "photos", train=5)
    assert f"is the dataset {tmp_path}/f/photos, with train?" in refused(tmp_path / "f")


def test_real_photographs(shared_data):
    data = load(shared_data / "hymenoptera_96px")
    assert [len(data.train), len(data.val), len(data.test)] == [220, 24, 153]
    assert data.class_names == ("ants", "bees")
    verify_images(data)


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
    write_class_folders(tmp_path, ["a", "b", "__MACOSX", ".git"], 10)
    for name in ("Thumbs.db", ".DS_Store", "a/Thumbs.db", "a/._0.png"):
        (tmp_path / name).write_bytes(b"\0")
    data = load(tmp_path)
    assert data.class_names == ("a", "b")
    assert data.notes == ()
    verify_images(data)


@pytest.mark.parametrize(("suffix", "kind"), [("gif", "GIF"), ("JFIF", "JPEG"), ("webp", "WEBP"), ("TIF", "TIFF")])
def test_images_of_every_ending_are_read(suffix, kind, tmp_path):
    for label, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for i in range(4):
            picture(10 * label + i).save(tmp_path / name / f"{i}.{suffix}", kind)
    data = load(tmp_path)
    verify_images(data)
    assert sum(map(len, data.splits.values())) == 8


def test_links_that_lead_back_end(tmp_path):
    folder = write_class_folders(tmp_path, ["a", "b"], 10)
    (folder / "a" / "loop").symlink_to(folder / "a")
    (folder / "b" / "up").symlink_to(folder)
    data = load(folder)
    assert sum(map(len, data.splits.values())) == 20
    assert data.notes == (
        "1 link to folders that are read already left out (such as a/loop)",
        "1 link to folders that are read already left out (such as b/up)",
    )


def test_a_link_that_leads_nowhere_is_a_missing_image(tmp_path):
    folder = write_class_folders(tmp_path, ["a", "b"], 10)
    (folder / "a" / "gone.png").symlink_to("nowhere")
    assert "a/gone.png is listed but not there" in refused(folder)


def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    folder = write_class_folders(tmp_path, ["a", "b"], 5)
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
    write_images(odd.parent, {odd.name: 5}, 7000)
    data = load(folder)
    assert data.class_names == ("a", "b", r"caf\xe9")
    verify_images(data)
    assert len(data.fingerprint()) == 16


def test_a_class_may_be_called_like_a_split_and_hold_folders(tmp_path):
    """No other folder is one to train on."""
    for name in ("test tube", "beaker", "flask"):
        write_images(tmp_path / name, {"2024": 8}, len(name) * 100)
    assert load(tmp_path).class_names == ("beaker", "flask", "test tube")


def test_one_folder_called_train_beside_others_with_folders_is_refused(tmp_path):
    """As of vehicles: a train, a car and a bus."""
    for name, inner in (("train", "steam"), ("car", "sedan"), ("bus", "red")):
        write_images(tmp_path / name, {inner: 8, f"{inner}2": 8}, len(name) * 100)
    assert "bus hold folders with images: call both train, val or test if they are splits" in refused(tmp_path)


def test_a_class_has_one_name_however_folders_write_it(tmp_path):
    for form, split, count in (("NFC", "train", 8), ("NFD", "train", 8), ("NFD", "test", 4)):
        name = unicodedata.normalize(form, "épée")
        write_images(tmp_path / split, {name: count, f"arc{'' if form == 'NFC' else ' '}": count}, count + ord(form[2]))
    assert "'arc' and 'arc ' differ in case or blanks alone; --set data.merge_names=true" in refused(tmp_path)
    data = load(tmp_path, merge_names=True)
    assert data.class_names == ("arc", "épée")
    assert [len(data.train) + len(data.val), len(data.test)] == [32, 8]


def test_images_of_a_kind_that_is_not_read_are_counted_by_class(tmp_path):
    for name, kept, lost in (("ants", 3, 2), ("bees", 4, 1)):
        for number in range(kept + lost):
            path = tmp_path / name / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            picture(number).save(path)
            if number >= kept:
                path.rename(path.with_suffix(".dng"))
    data = load(tmp_path, val_fraction=0.3, test_fraction=0.3)
    assert "3 images left out, 2 of 5 in ants, 1 of 5 in bees; 3 .dng (raw photos: write them as JPEG)" in data.notes
    for path in (tmp_path / "bees").glob("*.png"):
        path.rename(path.with_suffix(".svg"))
    assert "; 4 .svg (they are drawings: write them as PNG); 1 .dng (raw photos: " in refused(tmp_path)
