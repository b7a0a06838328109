import json
import random

import pytest
import torch
from PIL import Image
from safetensors.torch import save

import tvt_ray
from tvt_ray.errors import UsageError
from tvt_ray.exports.card import StudentCard
from tvt_ray.exports.folder import save_student
from tvt_ray.stages.score import read_arch
from tvt_ray.students import build_student


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
