"""Files that others run: that they compute what the student does, for students of all spaces and several shapes."""

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import REPO, SMALL_SPACES, call, one_by_day
from tests.exports.conftest import CLASSES, exported, write_folder
from tests.exports.test_timm import CASES
from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from tvt_ray.errors import UsageError
from tvt_ray.exports import EXPORTS, graphs
from tvt_ray.exports.folder import load_student
from tvt_ray.exports.formats import INT8_FILE, ONNX_FILE, PROGRAM_FILE, Wish, drawn, largest_difference
from tvt_ray.exports.graphs import load_program, normalised

PLAIN = Wish()
IDS = [case[0].arch_id(case[1]) for case in CASES]


def written(name, folder, student, wish=PLAIN):
    """The row's files, and what they compute, by name."""
    folder.mkdir()
    form = EXPORTS[name].on_demand
    form.check(student, wish)
    return {file: form.load(folder / file) for file in form.write(folder, student, wish)}


# Exporting takes seconds.
def each_space(test):
    return pytest.mark.slow(pytest.mark.parametrize("space", one_by_day(sorted(SMALL_SPACES, reverse=True)))(test))


@pytest.fixture(params=one_by_day(range(len(CASES))), ids=IDS)
def student(request, tmp_path):
    space, arch, _ = CASES[request.param]
    return load_student(write_folder(tmp_path / "student", space, arch))


@pytest.mark.slow
def test_onnx_files_compute_what_the_student_does(student, tmp_path):
    (file,) = written("onnx", tmp_path / "out", student).values()
    assert largest_difference(file, student, drawn(student.image_size)) <= 1e-5  # batches of 1 and of 7
    for count in (2, 33):
        batch = drawn(student.image_size).repeat(5, 1, 1, 1)[:count]
        with torch.no_grad():
            assert np.abs(file.logits(file.prepare(batch)) - student(normalised(batch)).numpy()).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pt2", "timm"])
def test_programs_and_timm_compute_what_the_student_does(student, name, tmp_path):
    (file,) = written(name, tmp_path / "out", student).values()
    assert largest_difference(file, student, drawn(student.image_size)) <= 1e-6


@pytest.fixture
def small(student_folder):
    return load_student(student_folder)


@each_space
def test_a_file_that_takes_pixels_normalises_them_itself(space):
    folder = exported(space, "onnx", pixels=True)
    small, file = load_student(folder / "student"), EXPORTS["onnx"].on_demand.load(folder / ONNX_FILE)
    pixels = drawn(small.image_size)
    assert file.prepare(pixels).dtype == np.uint8
    assert largest_difference(file, small, pixels) <= 1e-5


@each_space
def test_the_metadata_says_all_that_is_needed(space):
    import onnxruntime

    folder = exported(space, "onnx")
    small = load_student(folder / "student")
    for name in (ONNX_FILE, INT8_FILE):
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        entries = session.get_modelmeta().custom_metadata_map
        told = {key: json.loads(text) for key, text in entries.items()}
        assert told["labels"] == list(CLASSES)
        assert told["image_size"] == small.image_size
        assert (tuple(told["mean"]), tuple(told["std"])) == (IMAGENET_MEAN, IMAGENET_STD)
        assert (told["input"], told["background"]) == ("float", "white")
        assert told["arch_id"] == small.card.space.arch_id(small.card.arch)
        (images,), (logits,) = session.get_inputs(), session.get_outputs()
        assert (images.name, images.shape[1:]) == ("images", [3, small.image_size, small.image_size])
        assert isinstance(images.shape[0], str)  # any number
        assert (logits.name, logits.shape[1:]) == ("logits", [len(CLASSES)])


@each_space
def test_programs_say_the_same(space):
    folder = exported(space, "pt2")
    small = load_student(folder / "student")
    _, told = load_program((folder / PROGRAM_FILE).read_bytes())
    assert told["labels"] == list(CLASSES)
    assert (told["image_size"], told["input"]) == (small.image_size, "float")


@pytest.mark.parametrize("name", [name for name, export in EXPORTS.items() if export.on_demand])
@each_space
def test_files_name_nothing_of_the_machine_that_wrote_them(space, name):
    folder = exported(space, name)
    files = [file for file in folder.iterdir() if file.is_file()]
    assert files
    for file in files:
        for content in contents(file.read_bytes()):
            for word in (str(REPO), str(Path(torch.__file__).parent), str(folder.parent), ".py"):
                assert word.encode() not in content, (file.name, word)


def contents(data):
    """A file's bytes, or those of the files in it."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return [data]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [archive.read(name) for name in archive.namelist()]


@each_space
def test_int8_files_are_smaller_and_alike(space):
    folder = exported(space, "onnx")
    small, file = load_student(folder / "student"), EXPORTS["onnx"].on_demand.load(folder / INT8_FILE)
    sizes = [(folder / name).stat().st_size for name in (ONNX_FILE, INT8_FILE)]
    assert sizes[1] < sizes[0] or space == "pit"  # so small a PiT has more scales than weights
    assert 0 < largest_difference(file, small, drawn(small.image_size)) < 0.1


@each_space
def test_an_images_logits_in_8_bits_do_not_depend_on_its_neighbours(space):
    folder = exported(space, "onnx")
    file, size = EXPORTS["onnx"].on_demand.load(folder / INT8_FILE), load_student(folder / "student").image_size
    images = drawn(size)
    images[1:] //= torch.tensor([1, 2, 3, 50, 100, 200, 255])[:, None, None, None]  # of other ranges
    together = file.logits(file.prepare(images))
    for number in range(len(images)):
        alone = file.logits(file.prepare(images[number : number + 1]))
        assert alone.tobytes() == together[number : number + 1].tobytes()


def test_what_onnx_alone_can_do_is_refused_elsewhere(small, tmp_path):
    for number, (name, wish, said) in enumerate(
        [("pt2", Wish(int8=True), "--int8 is of ONNX files"), ("timm", Wish(pixels=True), "--pixels is of ONNX files")]
    ):
        with pytest.raises(UsageError, match=said):
            written(name, tmp_path / str(number), small, wish)


@pytest.mark.parametrize("missing", graphs.PACKAGES)
def test_packages_that_are_missing_are_named_with_what_installs_them(missing, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    folder = write_folder(tmp_path / "s", small.card.space)
    code, _, err = call(capsys, "export", folder, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert f"ONNX files need {missing}, which is not installed: pip install onnx onnxruntime onnxscript" in err
    assert not (tmp_path / "out").exists()
