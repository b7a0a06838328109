"""What lies in a folder, which split a name means, and what is said of the rest."""

import os
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tvt_ray.data.layout import (
    SPLITS,
    WORDS,
    counted,
    how_to_unpack,
    ignored_files,
    image_suffixes,
    is_image,
    listed,
    listing,
    split_of,
    walk,
    within,
    word_of,
)
from tvt_ray.errors import UsageError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(paths, folder):
    return [str(path.relative_to(folder)) for path in paths]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".jfif", ".png", ".Gif", ".webp", ".tif", ".TIFF", ".bmp", ".ppm"])
def test_what_pil_reads_is_an_image_in_any_case(suffix):
    assert is_image(Path(f"a{suffix}"))


def test_endings_are_those_of_formats_that_pil_decodes_by_itself():
    assert not image_suffixes() & {".h5", ".hdf", ".mpg", ".eps", ".ps", ".wmf", ".grib", ".pdf", ".txt", ""}
    kinds = {suffix: Image.registered_extensions()[suffix] for suffix in image_suffixes()}
    assert {suffix for suffix, kind in kinds.items() if kind not in Image.OPEN} == {".mpo"}  # opened as the JPEG it is


def test_files_are_listed_by_folder_and_name(tmp_path):
    touch(tmp_path, "b.png", "a/2.png", "a/10.png", "a/notes.txt", "a-b/1.jpg", "a/c/1.gif", "z")
    found = walk(tmp_path)
    assert names(found.images, tmp_path) == ["b.png", "a/10.png", "a/2.png", "a-b/1.jpg", "a/c/1.gif"]
    assert names(found.others, tmp_path) == ["z", "a/notes.txt"]
    assert found.repeated == []


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    touch(tmp_path, "a/1.png", "a/.DS_Store", "a/._1.png", "a/Thumbs.db", "a/desktop.ini", ".git/1.png")
    touch(tmp_path, "__MACOSX/a/1.png", "@eaDir/1.png", ".ipynb_checkpoints/1.png", "a/.cache/2.png")
    found = walk(tmp_path)
    assert names(found.images, tmp_path) == ["a/1.png"]
    assert found.others == []
    folders, files = listed(tmp_path)
    assert (names(folders, tmp_path), files) == (["a"], [])


@pytest.mark.parametrize("target", [".", "..", "a", "a/b", "../../.."])
def test_a_link_that_leads_back_is_not_followed(tmp_path, target):
    root = touch(tmp_path / "x" / "y", "a/1.png", "a/b/2.png")
    (root / "a" / "loop").symlink_to(root / target)
    found = walk(root)
    assert names(found.images, root) == ["a/1.png", "a/b/2.png"]
    assert names(found.repeated, root) == ["a/loop"]


def test_no_link_of_a_class_leads_to_the_whole_dataset(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "all").symlink_to(tmp_path)
    assert names(walk(tmp_path / "a", tmp_path).images, tmp_path) == ["a/1.png"]


def test_links_to_other_folders_and_files_are_followed_once(tmp_path):
    root, store = tmp_path / "root", touch(tmp_path / "store", "1.png", "deep/2.png")
    touch(root, "3.png")
    for name in ("one", "two"):
        (root / name).symlink_to(store)
    (root / "4.png").symlink_to(store / "1.png")
    found = walk(root)
    assert names(found.images, root) == ["3.png", "4.png", "one/1.png", "one/deep/2.png"]
    assert names(found.repeated, root) == ["two"]


def test_a_link_to_itself_or_to_nothing_is_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone.png").symlink_to("nowhere")
    found = walk(tmp_path)
    assert (names(found.images, tmp_path), names(found.others, tmp_path)) == (["gone.png"], ["self"])


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"absent cannot be read: No such file"):
        listed(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file cannot be read: Not a directory"):
        walk(tmp_path / "file")


def test_names_that_are_no_text_are_walked_like_others(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    touch(path, "1.png")
    assert [image.parent for image in walk(tmp_path).images] == [path]


@pytest.mark.parametrize(("split", "word"), [(split, word) for split, words in WORDS.items() for word in words])
def test_every_word_says_its_split_in_any_case_whole_as_prefix_and_as_suffix(split, word):
    for name in (word, word.upper(), word.title(), f"my_{word}", f"images-{word}", f"{word}_images", f"{word} set"):
        assert split_of(name) == split
        assert word_of(name) == word
    for name in (f"x{word}", f"{word}s", f"my_{word}_images"):
        assert split_of(name) is None


def test_the_words_are_those_that_people_use():
    assert tuple(WORDS) == SPLITS == ("train", "val", "test")
    assert {"train", "training"} <= set(WORDS["train"])
    assert {"val", "valid", "validation", "dev"} <= set(WORDS["val"])
    assert {"test", "testing", "eval"} <= set(WORDS["test"])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00012", "train"),
        ("train-00000-of-00001-a09b74b3ef9c3b56", "train"),
        ("my_train-00003-of-00012", "train"),
        ("partial-train", "train"),
        ("val2017", "val"),
        ("Test_images", "test"),
        ("dev.clean", "val"),
        ("поезд-train", "train"),
        ("trainé", None),
        ("locomotive", None),
        ("train_test", None),
        ("train_training", "train"),
        ("0000", None),
        ("", None),
    ],
)
def test_names_as_they_are_met(name, split):
    assert split_of(name) == split


def test_counts_have_the_right_number():
    assert [counted(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert (counted(2, "class"), counted(2, "copy")) == ("2 classes", "2 copies")


def test_of_many_names_the_first_are_listed_and_the_rest_counted():
    assert listing(["a", "b"]) == "a, b"
    assert listing(map(str, range(2000)), limit=3) == "0, 1, 2 and 1,997 more"
    assert listing([os.fsdecode(b"caf\xe9")]) == r"caf\xe9"


def test_files_that_are_left_out_are_counted_by_ending_with_an_example():
    root = Path("/d")
    paths = [root / name for name in ("README.md", "a/b.txt", "a/c.TXT", "a/Makefile")]
    assert ignored_files(paths, root, "image") == [
        "4 files are no images and left out: .txt 2, .md 1, no ending 1 (such as README.md)"
    ]
    assert ignored_files(paths[:1], root, "image") == ["1 file is no image and left out: .md 1 (such as README.md)"]
    assert ignored_files([], root, "image") == []


def test_a_path_is_seen_from_the_datasets_folder():
    assert within(Path("/d"), Path("/d/a/1.png")) == "a/1.png"
    assert within(Path("/d"), Path("/e/1.png")) == "/e/1.png"


def test_commands_that_are_offered_hold_names_as_a_shell_takes_them_whole():
    zipped, arrow, npz = (how_to_unpack([Path(f"/a b/$(id); x'\".{end}")]) for end in ("zip", "arrow", "npz"))
    for said in (zipped, arrow, npz):
        words = shlex.split(said.split("packed: ")[1])
        assert any(word.startswith("/a b/$(id); x'\".") for word in words)
    assert shlex.split(zipped.split("packed: ")[1])[0] == "unzip"
    for said in (arrow, npz):
        program = shlex.split(said.split("packed: ")[1])
        assert program[:2] == ["python", "-c"]
        compile(program[2], "offered", "exec")
        assert "$(id)" not in program[2]
