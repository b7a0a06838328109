import os
from pathlib import Path

from tvt_ray.data.notes import counted, ignored_files, listing, within


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
