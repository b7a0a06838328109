"""tvt check-data, as one reads it."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import call
from tests.data.samples import picture, write_class_folders


def test_it_counts_images_by_class(capsys):
    code, out, _ = call(capsys, "check-data", "--json")
    described = json.loads(out)
    assert code == 0
    assert described["num_images"] == {"train": 1294, "val": 144, "test": 359}
    assert sum(counts["train"] for counts in described["classes"].values()) == 1294
    assert described.keys() == {
        *("dataset", "num_classes", "num_images", "classes", "origins", "notes", "imbalance", "images"),
        *("duplicates", "contact_sheets", "labels"),
    }


@pytest.mark.slow
def test_a_dataset_is_named_alone_or_by_the_flag(capsys, tmp_path):
    folder = write_class_folders(tmp_path / "photos", ["ants", "bees"], 10)
    ways = ([folder], ["--dataset", folder], [f"imagefolder:{folder}"])
    assert len({call(capsys, "check-data", *flags, "--json")[1] for flags in ways}) == 1
    code, _, err = call(capsys, "check-data", folder, "--dataset", "digits")
    assert (code, err) == (2, f"error: one dataset at a time: {folder} or --dataset digits\n")
    code, _, err = call(capsys, "check-data", folder, "--out", folder / "sheets")
    assert code == 2
    assert "lies in the dataset's own folder" in err


@pytest.mark.slow
def test_it_says_line_by_line_what_is_there_and_what_looks_wrong(capsys, tmp_path):
    folder = write_class_folders(tmp_path / "photos", ["ants", "bees"], 10)
    Image.new("RGB", (50, 70), (1, 2, 3)).save(folder / "ants" / "flat.png")
    picture(0).save(folder / "ants" / "copy.png")
    picture(5).save(folder / "loose.png")
    (folder / "README.md").touch()
    flags = ["--dataset", f"imagefolder:{folder}", "--set", "data.split_seed=3", "--out", tmp_path / "out"]
    code, out, err = call(capsys, "check-data", *flags)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == f"imagefolder:{folder}: 2 classes"
    said = lines[next(i for i, line in enumerate(lines) if line.startswith("val ")) :]
    assert said == [
        "val         carved: 20% of the training images",
        "test        carved: 20% of the images",
        "balance     every class has as many training images; "
        "saying one class always is right for 60.0 % of test at most",
        "sizes       smallest 12 x 10, median 12 x 10, largest 50 x 70",
        "modes       RGB 22",
        "empty       1 image of a single value, such as ants/flat.png",
        "duplicates  1 image twice in one class, such as ants/0.png and ants/copy.png: it counts double",
        "image size  128 pixels, for stages of a pretrained teacher; the images themselves allow 32",
        "labels      the features of tf_efficientnet_lite0 say nothing of them: 47.1 % by those, and "
        "52.9 % for always the largest class",
        "note        1 image in no class folder left out (such as loose.png)",
        "note        1 file is no image and left out: .md 1 (such as README.md)",
        f"drawn       {tmp_path}/out/contact_sheet.png",
    ]


@pytest.mark.slow
def test_names_that_are_no_text_are_printed_escaped(capsys, tmp_path):
    folder = write_class_folders(tmp_path, ["ants", "bees"], 5)
    os.rename(folder / "bees", os.fsencode(folder) + b"/caf\xe9")  # noqa: PTH104 (Path takes no bytes)
    odd = next(path for path in folder.iterdir() if path.name != "ants")
    Path(odd / "0.png").write_bytes((folder / "ants" / "0.png").read_bytes())
    for flags in ([], ["--json"]):
        code, out, err = call(capsys, "check-data", "--dataset", f"imagefolder:{folder}", *flags)
        assert code == 0, err
        out.encode()  # as a file would have it
        assert r"caf\xe9" in (json.loads(out)["classes"] if flags else out)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(capsys, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = call(capsys, "check-data", "--out", tmp_path / "file" / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "contact_sheet.png cannot be written" in err


def test_what_the_data_cannot_be_is_one_line(capsys, tmp_path):
    folder = write_class_folders(tmp_path, ["ants", "bees"], 2)
    code, out, err = call(capsys, "check-data", "--dataset", f"imagefolder:{folder}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "every class needs 3 images" in err
    assert "too few: ants (2), bees (2)" in err
