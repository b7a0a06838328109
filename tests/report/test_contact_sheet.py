import numpy as np
import pytest
from PIL import Image

from tests.data.samples import encode
from tvt_ray.data.images import ArrayImages, EncodedImages
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.report.contact_sheet import CLASSES_PER_SHEET, write_contact_sheets

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def made(num_classes=3, each=2, size=40):
    """Every class has images of one colour, different in the splits."""
    labels = np.repeat(np.arange(num_classes), each)
    colours = np.array([COLOURS[label % 3] for label in labels], np.uint8)
    splits = []
    for darker in (0, 0, 25):
        pixels = np.broadcast_to((colours - darker)[:, None, None], (len(labels), size, size, 3))
        splits.append(Split.whole(ArrayImages(pixels), labels))
    return Dataset("made", *splits, tuple(f"class {label}" for label in range(num_classes)))


def colours(path):
    """How many pixels of a sheet have which colour."""
    with Image.open(path) as sheet:
        counts = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
    return {colour: count for count, colour in counts}


def test_images_of_each_class_and_split_are_there_to_the_pixel(tmp_path):
    (path,) = write_contact_sheets(tmp_path, made(), 32)
    found = colours(path)
    assert path == tmp_path / "contact_sheet.png"
    for r, g, b in COLOURS:
        assert found[r, g, b] == found[r - 25, g - 25, b - 25] == 2 * 64 * 64  # two images, twice as large each


@pytest.mark.parametrize(
    ("image_size", "cell"), [(8, 64), (32, 64), (48, 96), (64, 64), (96, 96), (224, 112), (384, 128)]
)
def test_small_images_are_enlarged_and_large_ones_made_smaller(image_size, cell, tmp_path):
    found = colours(write_contact_sheets(tmp_path, made(2, 1), image_size)[0])
    assert found[COLOURS[0]] == found[COLOURS[1]] == cell * cell


def test_many_images_of_a_class_are_sampled_the_same_each_time(tmp_path):
    data = made(2, 50)
    sheets = [write_contact_sheets(tmp_path / name, data, 32)[0].read_bytes() for name in ("a", "b")]
    assert sheets[0] == sheets[1]
    found = colours(tmp_path / "a" / "contact_sheet.png")
    assert found[COLOURS[0]] == 8 * 64 * 64
    assert found[5, 175, 5] == 4 * 64 * 64


def test_many_classes_have_several_sheets(tmp_path):
    paths = write_contact_sheets(tmp_path, made(CLASSES_PER_SHEET + 1, 1), 64)
    assert [path.name for path in paths] == ["contact_sheet_1.png", "contact_sheet_2.png"]
    assert colours(paths[1])[COLOURS[CLASSES_PER_SHEET % 3]] == 64 * 64
    assert sum(colours(paths[0]).get(colour, 0) for colour in COLOURS) == CLASSES_PER_SHEET * 64 * 64


@pytest.mark.filterwarnings("error")
def test_names_of_any_length_and_script_are_shown_as_they_are(tmp_path):
    split = Split.whole(EncodedImages([encode(Image.new("L", (9, 5), 77))] * 3, ["a"] * 3), [0, 1, 2])
    names = ("$x_1$ \\frac\n", "a" * 200, "猫")
    (path,) = write_contact_sheets(tmp_path, Dataset("imagefolder:/d/$y$", split, split, split, names), 32)
    with Image.open(path) as sheet:
        assert sheet.width < 1300
    assert colours(path)[77, 77, 77] >= 6 * 64 * 64
