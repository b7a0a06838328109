"""A student that onnxruntime runs: it sees images as the student in torch does."""

import dataclasses

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.data.samples import picture
from tests.exports.conftest import exported
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.exports.formats import ONNX_FILE
from tvt_ray.inference import InputKind, OnnxFacts, load_onnx

pytestmark = pytest.mark.slow
SIZES = [(32, 32), (12, 10), (33, 70), (90, 40), (400, 301), (1, 1), (5, 64)]


@pytest.fixture(scope="module")
def student():
    """In torch, and the folder with its file."""
    folder = exported("vit", "onnx")
    return load_student(folder / "student"), folder


@pytest.mark.parametrize("size", SIZES)
def test_images_of_any_size_are_seen_as_in_training(student, size):
    own, found = student[0], load_onnx(str(student[1] / ONNX_FILE))
    image = picture(0, size)
    assert np.abs(found.transform(image) - own.transform(image).numpy()).max() < 1e-4


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "F"])
def test_images_of_any_mode_are_seen_as_in_training(student, mode):
    own, found = student[0], load_onnx(str(student[1] / ONNX_FILE))
    grey = Image.fromarray(np.arange(2500, dtype=np.uint16).reshape(50, 50)) if mode == "I;16" else None
    image = grey or picture(1, (50, 40)).convert(mode)
    assert np.abs(found.transform(image) - own.transform(image).numpy()).max() < 1e-4


def test_labels_and_probabilities_are_the_students(student):
    images = [picture(number, size) for number, size in enumerate(SIZES)]
    own, found = student[0].predict(images), load_onnx(str(student[1] / ONNX_FILE)).predict(images)
    assert [label for label, _ in found] == [label for label, _ in own]
    assert [p for _, p in found] == pytest.approx([p for _, p in own], abs=1e-5)


def test_facts_are_written_as_they_are_read():
    kind: InputKind = "uint8"
    facts = OnnxFacts(("a", "b"), 32, (0.5, 0.25, 0.125), (1.0, 2.0, 3.0), kind, "white", "x")
    assert OnnxFacts.from_metadata(facts.to_metadata()) == facts
    with pytest.raises(KeyError):
        OnnxFacts.from_metadata({"labels": "[]"})
    with pytest.raises(ValueError, match="a colour is written as in"):
        OnnxFacts.from_metadata(dataclasses.replace(facts, background="no colour").to_metadata())


def test_files_of_others_are_refused_in_a_line(student, tmp_path):
    model = onnx.load(student[1] / ONNX_FILE)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "strange.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("strange.onnx", "text.onnx", "empty.onnx"):
        with pytest.raises(UsageError, match=f"{name}: an ONNX file that tvt export wrote is needed; got another"):
            load_onnx(str(tmp_path / name))
    with pytest.raises(UsageError, match="there is no ONNX file"):
        load_onnx(str(tmp_path / "none.onnx"))
