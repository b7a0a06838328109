"""tvt predict, with a student of random weights."""

import json
import random

import pytest
from PIL import Image
from safetensors.torch import save

from tests.conftest import SMALL_SPACES, call
from tests.data.samples import picture
from tvt_ray.exports.card import StudentCard
from tvt_ray.exports.folder import load_student, save_student
from tvt_ray.students import build_student

SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture
def student(tmp_path):
    arch = SPACE.sample(random.Random(0))
    card = StudentCard(SPACE, arch, ("ants", "bees"), {}, background="#000000")
    save_student(tmp_path / "student", card, save(build_student(SPACE, arch, 2, seed=0).state_dict()), [])
    return tmp_path / "student"


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
