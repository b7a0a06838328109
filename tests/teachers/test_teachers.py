"""The table of teachers; a new row in TEACHERS is tested here without another line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.data.transforms import normalize, resize
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig
from tvt_ray.teachers import TEACHERS, build_teacher, check_settings, describe_teachers, kind_of
from tvt_ray.teachers.cifar_resnet import CifarResNet
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import NUM_STAGES, Teacher

MODELS = {"timm:NAME": "timm:resnet18"}  # a small one of each kind that is followed by a model's own name


@pytest.mark.parametrize("described", describe_teachers())
def test_every_name_builds_a_teacher_that_gives_logits_and_three_maps(described):
    settings = TeacherSettings(name=MODELS.get(described, described), pretrained=False, image_size=32)
    teacher = build_teacher(settings, 3).eval()
    assert isinstance(teacher, Teacher)
    assert teacher.name == settings.name
    with torch.no_grad():
        logits, maps = teacher(torch.zeros(2, 3, 48, 48))
    assert logits.shape == (2, 3)
    assert [len(features) for features in maps] == [2] * NUM_STAGES
    assert maps[0].shape[-1] > maps[1].shape[-1] > maps[2].shape[-1]  # the coarsest comes last


def test_names_are_described_as_people_write_them():
    assert describe_teachers() == ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "timm:NAME"]
    assert [name.removesuffix("NAME") for name in describe_teachers()] == list(TEACHERS)


def test_a_kind_is_a_row_of_the_table():
    assert kind_of("resnet56") == "resnet56"
    assert kind_of("timm:resnet18") == "timm:"
    assert all(kind_of(MODELS.get(name, name)) in TEACHERS for name in describe_teachers())


def test_unknown_names_list_the_choices():
    with pytest.raises(UsageError, match=r"^config teacher\.name: .*did you mean 'resnet56'.*resnet110, timm:NAME"):
        RunConfig().with_(teacher={"name": "resnet57"})
    with pytest.raises(ValueError, match="unknown teacher") as error:
        kind_of("vgg")
    assert str(error.value) == f"unknown teacher 'vgg'; choices: {', '.join(describe_teachers())}"


def test_a_model_of_the_hub_is_one_of_timm():
    with pytest.raises(ValueError, match=r"unknown teacher .* \(did you mean 'timm:hf-hub:timm/x'\?\); choices"):
        kind_of("hf-hub:timm/x")
    assert kind_of("timm:hf-hub:timm/x") == "timm:"


@pytest.mark.parametrize("name", ["", "timm", "timm:", "resnet20:x", ":"])
def test_half_a_name_is_unknown(name):
    with pytest.raises(ValueError, match=r"unknown teacher .*choices: resnet20"):
        kind_of(name)


def test_what_is_wrong_with_settings_is_said_before_any_work(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "page.pth").write_text("<!doctype html><title>Sign in</title>")
    torch.save(CifarResNet(20, 5).state_dict(), tmp_path / "t.pth")
    cases = [
        (TeacherSettings(weights=tmp_path / "absent.pt"), r"there is no file .*absent\.pt"),
        (TeacherSettings(weights=tmp_path / "folder"), "folder is a folder with no files of weights in it; name one"),
        (TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "absent.pt"), r"there is no file .*absent\.pt"),
        (TeacherSettings(name="timm:resnet19"), "timm has no model 'resnet19'; near: .*resnet18"),
        (TeacherSettings(weights=tmp_path / "page.pth"), r"page\.pth cannot be read as weights: it is text"),
        (TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "page.pth"), "is text"),
        (TeacherSettings(pretrained=tmp_path / "t.pth"), "resnet20 is trained from scratch; a file as teacher"),
        (
            TeacherSettings(name="timm:vit_tiny_patch16_224", pretrained=False),
            "timm:vit_tiny_patch16_224 cannot teach: its maps",
        ),
        (
            TeacherSettings(image_size=1),
            r"images of 1 pixels are too small for resnet20: its stage maps are \[1, 1, 1\]",
        ),
    ]
    for settings, message in cases:
        with pytest.raises(UsageError, match=message) as error:
            check_settings(settings)
        assert "\n" not in str(error.value)


def test_settings_that_can_be_used_pass(tmp_path):
    save_file(CifarResNet(20, 5).state_dict(), tmp_path / "t.safetensors")
    for settings in (
        TeacherSettings(),
        TeacherSettings(weights=tmp_path / "t.safetensors"),
        TeacherSettings(name="timm:resnet18"),  # whether it can be downloaded shows when it is
        TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "t.safetensors"),
    ):
        check_settings(settings)


def test_looking_says_nothing_and_using_says_what_was_chosen(tmp_path, capsys):
    state = CifarResNet(20, 5).state_dict()
    torch.save({"model": state, "model_ema": state}, tmp_path / "t.pth")
    settings = TeacherSettings(weights=tmp_path / "t.pth")
    check_settings(settings)
    assert capsys.readouterr().err == ""
    build_teacher(settings, 5)
    taken = "the moving averages (EMA) under model_ema are taken; not those under model"
    assert capsys.readouterr().err == f"teacher weights: {tmp_path / 't.pth'}: {taken}\n"


def test_looking_leaves_random_numbers_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    for name in ("resnet20", "timm:resnet18"):
        check_settings(TeacherSettings(name=name))
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_a_file_may_be_named_beside_the_settings(tmp_path):
    model = CifarResNet(20, 5)
    save_file(model.state_dict(), tmp_path / "t.safetensors")
    teacher = build_teacher(TeacherSettings(), 5, tmp_path / "t.safetensors")
    assert torch.equal(teacher.backbone.conv1.weight, model.conv1.weight)
    assert not teacher.training


def test_a_teacher_sees_its_own_size_and_normalisation(tmp_path):
    settings = TeacherSettings(name="timm:inception_v4", pretrained=False, image_size=96)  # mean and std of 0.5
    teacher, raw = build_teacher(settings, 3).freeze(), torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        ours, _ = teacher(normalize(raw))
        theirs, _ = teacher.backbone(resize((raw - 0.5) / 0.5, 96))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_teacher_of_imagenets_normalisation_sees_images_as_they_are():
    teacher, images = build_teacher(TeacherSettings(), 3).freeze(), torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(images)[0], teacher.backbone(images)[0])


def test_a_frozen_teacher_neither_learns_nor_counts():
    teacher = build_teacher(TeacherSettings(), 3)
    assert teacher.training
    assert teacher.freeze() is teacher
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
