"""What `distill.init` may name, and what is said of what it may not."""

import random

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import SMALL_SPACES
from tests.exports.conftest import CLASSES, write_folder
from tests.vits.expanded import same
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.verbs.init import read_source
from tvt_ray.vits import build_student
from tvt_ray.vits.weight_selection import heads_of


@pytest.mark.parametrize("space", SMALL_SPACES.values(), ids=SMALL_SPACES)
def test_a_students_folder_tells_heads_and_classes(space, tmp_path):
    folder = write_folder(tmp_path / "student", space)
    student, source = load_student(folder).student, read_source(str(folder))
    assert same(source.state, student.state_dict())
    assert (source.class_names, source.num_heads) == (CLASSES, heads_of(student))
    assert read_source(str(folder / "model.safetensors")).digest == source.digest


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_holds_a_state_dict_and_says_nothing_of_heads(name, tmp_path, capsys):
    space = SMALL_SPACES["vit"]
    state, path = build_student(space, space.sample(random.Random(0)), 3, seed=0).state_dict(), tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save({"model": state}, path)
    source = read_source(str(path))
    assert same(source.state, {key: value for key, value in state.items() if not key.startswith("head.")})
    assert "does not say what heads it has; they are taken to have 64 channels each" in capsys.readouterr().err


def written(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda p: p / "nothing",
            r"there is no file or folder .*nothing; give timm:NAME, a file, or a student's folder",
        ),
        (lambda p: p, r"holds no trained student: there is no arch\.json"),
        (lambda p: written(p / "cnn.pth", {"conv1.weight": torch.ones(1)}), r"is no ViT: it has no blocks\.0"),
        (lambda p: written(p / "list.pth", [1, 2]), "holds no state dict"),
        (lambda p: "timm:resnet18", "timm:resnet18 is no ViT; timm:vit_tiny_patch16_224 is one"),
        (lambda p: "timm:vit_tiny_patch16_225", "timm has no model 'vit_tiny_patch16_225'; near: vit_tiny_patch16_224"),
        (lambda p: "timm:vit_tiny_patch16_224.nobody", "timm has no weights 'nobody' of vit_tiny_patch16_224"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(make, told, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=told) as error:
        read_source(str(make(tmp_path)))
    assert str(error.value).startswith("distill.init: ")
    assert "\n" not in str(error.value)


def test_nothing_of_a_pickle_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    path = written(tmp_path / "evil.pth", {"state_dict": Evil()})
    with pytest.raises(UsageError):
        read_source(str(path))
    assert not (tmp_path / "opened").exists()


def test_without_a_network_timms_weights_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = torch.random.get_rng_state()
    with pytest.raises(
        UsageError, match=r"the weights of timm:vit_tiny_patch16_224 could not be downloaded \(.*local"
    ) as e:
        read_source("timm:vit_tiny_patch16_224")
    assert "\n" not in str(e.value)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_path_in_the_settings_is_of_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DistillSettings(init="weights.pth").init == str(tmp_path / "weights.pth")
    assert DistillSettings(init="timm:vit_tiny_patch16_224").init == "timm:vit_tiny_patch16_224"
    with pytest.raises(ValueError, match="init is timm:NAME, a file"):
        DistillSettings(init="")
