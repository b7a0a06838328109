"""tvt predict, with a student of random weights."""

import csv
import io
import json
import random
import subprocess
import sys

import pytest
from PIL import Image
from safetensors.torch import save

from tests.conftest import REPO, SMALL_SPACES, call, once
from tests.data.samples import encode, picture
from tvt_ray.cli.predict import _as_csv
from tvt_ray.exports import EXPORTS
from tvt_ray.exports.folder import StudentCard, load_student, save_student
from tvt_ray.exports.formats import Wish
from tvt_ray.inference import Prediction
from tvt_ray.vits import build_student

SPACE = SMALL_SPACES["autoformer"]


def write_student(folder):
    arch = SPACE.sample(random.Random(0))
    card = StudentCard(SPACE, arch, ("ants", "bees"), {}, background="#000000")
    save_student(folder, card, save(build_student(SPACE, arch, 2, seed=0).state_dict()), [])
    return folder


@pytest.fixture
def student(tmp_path):
    return write_student(tmp_path / "student")


def predictions(capsys, *argv):
    code, out, err = call(capsys, "predict", *argv, "--json")
    assert code == 0, err
    return json.loads(out)["predictions"]


def test_images_are_named_as_they_were_given(capsys, student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    picture(0).save("a.png")
    found = predictions(capsys, student, "a.png", "~/a.png")
    assert [entry["image"] for entry in found] == ["a.png", "~/a.png"]
    assert found[0]["label"] == found[1]["label"] in ("ants", "bees")
    code, out, _ = call(capsys, "predict", student, "a.png")
    assert code == 0
    assert out == f"a.png  {found[0]['label']}  {found[0]['probability']:.3f}\n"


def test_images_are_decoded_as_the_training_images_were(capsys, student, tmp_path):
    Image.new("RGBA", (20, 20), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (20, 20), (0, 0, 0)).save(tmp_path / "black.png")
    clear, black = predictions(capsys, student, tmp_path / "clear.png", tmp_path / "black.png")
    assert (clear["label"], clear["probability"]) == (black["label"], black["probability"])
    loaded = load_student(student)
    assert loaded.predict([Image.open(tmp_path / "clear.png")]) == [(clear["label"], clear["probability"])]


def test_a_huge_image_is_allowed_by_the_setting(capsys, student, tmp_path):
    picture(0, (40, 30)).save(tmp_path / "a.png")
    code, _, err = call(capsys, "predict", student, tmp_path / "a.png", "--set", "data.max_pixels=1199")
    assert (code, err.count("\n")) == (2, 1)
    assert "a.png has 40 x 30 pixels, more than data.max_pixels allows (1,199)" in err
    assert "--set data.max_pixels=1200" in err
    assert predictions(capsys, student, tmp_path / "a.png", "--set", "data.max_pixels=1200")


def test_a_setting_that_is_not_there_is_refused(capsys, student, tmp_path):
    picture(0).save(tmp_path / "a.png")
    code, _, err = call(capsys, "predict", student, tmp_path / "a.png", "--set", "data.max_pixel=9")
    assert code == 2
    assert "did you mean 'data.max_pixels'" in err


def test_folders_are_read_whole_and_images_are_named_with_their_folder(capsys, student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new" / "b").mkdir(parents=True)
    for number in range(70):  # more than a batch
        picture(number).save(tmp_path / "new" / f"{number:02}.png")
    picture(0).save(tmp_path / "new" / "b" / "last.PNG")
    (tmp_path / "new" / "notes.txt").write_text("no image")
    found = predictions(capsys, student, "new", "new/03.png")
    names = [f"new/{number:02}.png" for number in range(70)]
    assert [entry["image"] for entry in found] == [*names, "new/b/last.PNG", "new/03.png"]
    images = [picture(number) for number in range(70)]
    expected = load_student(student).predict(images)
    assert [entry["label"] for entry in found[:70]] == [label for label, _ in expected]
    assert [entry["probability"] for entry in found[:70]] == pytest.approx([p for _, p in expected], abs=1e-6)
    assert found[3] == found[-1] | {"probability": pytest.approx(found[-1]["probability"], abs=1e-6)}


def test_tables_have_a_line_for_each_image_and_say_which_could_not_be_read(capsys, student, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    picture(0).save(folder / "a, b.png")
    (folder / "broken.png").write_bytes(encode(picture(1))[:40])
    code, out, err = call(capsys, "predict", student, folder, "--out", tmp_path / "t.csv")
    assert (code, out) == (0, "")
    assert "left out: corrupt image" in err
    assert "1 images named, 1 left out" in err
    with (tmp_path / "t.csv").open(newline="") as file:
        whole, broken = csv.DictReader(file)
    label, probability = load_student(student).predict([picture(0)])[0]
    assert whole == {"image": f"{folder}/a, b.png", "label": label, "probability": f"{probability:.6f}", "error": ""}
    assert (broken["image"], broken["label"], broken["probability"]) == (f"{folder}/broken.png", "", "")
    assert broken["error"].startswith(f"corrupt image {folder}/broken.png")
    assert call(capsys, "predict", student, folder, "--out", tmp_path / "t.json")[0] == 0
    table = json.loads((tmp_path / "t.json").read_text())
    assert [entry["label"] for entry in table["predictions"]] == [label]
    assert [entry["image"] for entry in table["left_out"]] == [f"{folder}/broken.png"]


def test_what_cannot_be_read_is_one_line(capsys, student, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    for argv, said in [
        ([student, tmp_path / "broken.png"], "corrupt image"),  # that was named itself
        ([student, tmp_path / "bad"], "none of the 1 images can be read, such as: corrupt image"),
        ([student, tmp_path / "empty"], "empty holds no images"),
        ([student, ""], "a path is empty"),
        (["", tmp_path / "bad"], "a path is empty"),
        ([student, tmp_path / "none.png"], "none.png; "),
        ([student, tmp_path / "bad", "--out", tmp_path / "t.xlsx"], "--out ends in .csv or .json"),
        ([tmp_path / "none.onnx", tmp_path / "bad"], "there is no ONNX file"),
        ([tmp_path / "empty", tmp_path / "bad"], "empty holds no trained student: there is no arch.json"),
    ]:
        code, out, err = call(capsys, "predict", *argv)
        assert (code, out) == (2, ""), argv
        assert said in err.splitlines()[-1]


@pytest.fixture
def onnx_file():
    """The student's, made once for all tests, which read it."""

    def make(folder):
        student = write_student(folder / "student")
        EXPORTS["onnx"].on_demand.write(folder, load_student(student), Wish())

    return once("predict-onnx", make) / "model.onnx"


@pytest.mark.slow
def test_an_onnx_file_names_images_as_its_student_does(capsys, student, onnx_file, tmp_path):
    (tmp_path / "new").mkdir()
    for number, size in enumerate([(12, 10), (32, 32), (90, 40), (33, 70)]):
        picture(number, size).save(tmp_path / "new" / f"{number}.png")
    Image.new("RGBA", (20, 20), (255, 255, 255, 0)).save(tmp_path / "new" / "clear.png")
    own, found = (predictions(capsys, each, tmp_path / "new") for each in (student, onnx_file))
    assert [(entry["image"], entry["label"]) for entry in found] == [(entry["image"], entry["label"]) for entry in own]
    assert [e["probability"] for e in found] == pytest.approx([e["probability"] for e in own], abs=1e-5)


@pytest.mark.slow
def test_an_onnx_file_is_run_without_torch(student, onnx_file, tmp_path):
    picture(0).save(tmp_path / "a.png")
    script = (
        "import sys\nfrom tvt_ray.cli.main import main\ncode = main(sys.argv[1:])\n"
        "assert 'onnxruntime' in sys.modules\n"
        "sys.exit(code or 'torch' in sys.modules and 'torch was imported')"
    )
    flags = ["--set", "data.max_pixels=120", "--out", tmp_path / "t.csv"]
    command = [sys.executable, "-c", script, "predict", onnx_file, tmp_path / "a.png", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    label, _ = load_student(student).predict([picture(0)])[0]
    assert f"a.png,{label},0." in (tmp_path / "t.csv").read_text()


@pytest.mark.slow
def test_of_settings_an_onnx_file_takes_the_largest_image_alone(capsys, onnx_file, tmp_path):
    picture(0, (40, 30)).save(tmp_path / "a.png")
    for setting, said in [
        ("data.max_pixels=1199", "more than data.max_pixels allows (1,199)"),
        ("seed=3", "with an ONNX file --set takes data.max_pixels alone"),
        ("data.max_pixels=many", "at least 1; got 'many'"),
    ]:
        code, _, err = call(capsys, "predict", onnx_file, tmp_path / "a.png", "--set", setting)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err


def test_onnx_files_need_onnxruntime(capsys, tmp_path, monkeypatch):
    picture(0).save(tmp_path / "a.png")
    onnx_file = tmp_path / "model.onnx"
    onnx_file.write_bytes(b"not looked into")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    code, _, err = call(capsys, "predict", onnx_file, tmp_path / "a.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "onnxruntime, which is not installed: pip install onnxruntime" in err


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(1)", "'@SUM(1)"),
        ("+1+1", "'+1+1"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("-1", "-1"),
        ("+2.5e3", "+2.5e3"),
        ("cat=dog", "cat=dog"),
    ],
)
def test_what_a_spreadsheet_would_run_becomes_text(text, cell):
    table = _as_csv([Prediction(text, text, 0.5, None), Prediction("b.jpg", None, None, text)])
    rows = list(csv.reader(io.StringIO(table)))
    assert rows[1][:2] == [cell, cell]
    assert rows[2] == ["b.jpg", "", "", cell]
