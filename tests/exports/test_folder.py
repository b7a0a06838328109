"""A student's folder: what describes it, and what is loaded from it."""

from __future__ import annotations

import dataclasses
import io
import json
import random

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import save

import tvt_ray
from tests.data.samples import picture
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import DistilledStudent, StudentCard, save_student
from tvt_ray.verbs.score import read_arch
from tvt_ray.vits import build_student, parse_space


@pytest.fixture
def saved(space, tmp_path):
    arch = space.sample(random.Random(0))
    student = build_student(space, arch, 3, seed=0)
    card = StudentCard(space, arch, ("a", "b", "c"), {"test_acc": 91.5})
    save_student(tmp_path / "s", card, save(student.state_dict()), [{"epoch": 1, "val_acc": 90.0}])
    return tmp_path / "s", student, card


def test_a_student_comes_back_as_it_was(saved):
    folder, student, card = saved
    loaded = tvt_ray.load_student(folder)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), student(images))
    assert loaded.card == card
    assert not loaded.training
    assert json.loads((folder / "metrics.jsonl").read_text()) == {"epoch": 1, "val_acc": 90.0}


def test_predictions_name_classes(saved):
    loaded = tvt_ray.load_student(str(saved[0]))
    grey, wide = Image.new("L", (20, 20), 100), Image.new("RGB", (90, 40), (200, 10, 30))
    (label, probability), (alone, _) = loaded.predict([grey, wide])[0], loaded.predict([grey])[0]
    assert label == alone
    assert label in ("a", "b", "c")
    assert 1 / 3 <= probability <= 1


def test_images_are_seen_as_in_training_whatever_their_mode(saved):
    """Upright, of 8 bits, on the background of the training images."""
    folder, student, card = saved
    loaded = tvt_ray.load_student(folder)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright = picture(0, (32, 40))
    buffer = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    assert torch.equal(loaded.transform(Image.open(buffer)), loaded.transform(upright))
    deep = Image.fromarray(257 * np.asarray(upright.convert("L"), np.uint16))
    assert torch.equal(loaded.transform(deep), loaded.transform(upright.convert("L")))
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert torch.equal(loaded.transform(clear), loaded.transform(Image.new("RGB", (32, 32), (255, 255, 255))))
    black = DistilledStudent(student, dataclasses.replace(card, background="#010203"))
    assert torch.equal(black.transform(clear), loaded.transform(Image.new("RGB", (32, 32), (1, 2, 3))))


def test_a_student_of_an_earlier_version_saw_a_white_background(saved):
    file = saved[0] / "arch.json"
    entry = json.loads(file.read_text())
    assert entry.pop("background") == "white"
    file.write_text(json.dumps(entry))
    assert tvt_ray.load_student(saved[0]).card == saved[2]
    for colour in ("whitish", 3, ["white"]):
        file.write_text(json.dumps({**entry, "background": colour}))
        with pytest.raises(UsageError, match="does not describe a student: a colour is written as in white"):
            tvt_ray.load_student(saved[0])


def test_its_description_is_an_architecture_file(saved, space):
    assert read_arch(saved[0] / "arch.json", space) == saved[2].arch


def test_folders_without_a_whole_student_are_refused(saved, tmp_path):
    folder = saved[0]
    with pytest.raises(UsageError, match=r"no arch\.json"):
        tvt_ray.load_student(tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(UsageError, match="does not fit"):
        tvt_ray.load_student(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "arch.json").write_text('{"space": "pit"}')
    with pytest.raises(UsageError, match="does not describe a student"):
        tvt_ray.load_student(folder)


def test_a_card_says_what_rebuilds_the_student_and_what_it_reached(space):
    arch = space.sample(random.Random(0))
    card = StudentCard(space, arch, ("a", "b", "c"), {"test_acc": 91.5})
    entry = json.loads(json.dumps(card.to_json()))
    assert entry["space"] == space.name
    assert entry["arch_id"] == space.arch_id(arch)
    assert (entry["params"], entry["flops"]) == space.cost(arch, 3)
    assert entry["class_names"] == ["a", "b", "c"]
    assert entry["results"] == {"test_acc": 91.5}
    assert entry["background"] == "white"
    assert parse_space(entry["space_settings"]) == space
    assert space.from_json(entry["arch"]) == arch


def test_a_description_of_more_than_the_weights_are_is_refused_before_it_is_built(saved):
    """Whatever it asks for: classes, blocks or pixels."""
    folder = saved[0]
    entry = json.loads((folder / "arch.json").read_text())
    entry["class_names"] = [f"class {i}" for i in range(300_000)]
    (folder / "arch.json").write_text(json.dumps(entry))
    with pytest.raises(UsageError, match=r"does not fit arch\.json: [\d,]+ bytes hold no [\d,]+ parameters"):
        tvt_ray.load_student(folder)
