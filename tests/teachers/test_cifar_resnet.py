import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.cifar_resnet import CIFAR_RESNETS, CifarResNet, shortcut_of
from tvt_ray.teachers.settings import TeacherSettings


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet56", 0.85), ("resnet110", 1.73)])
def test_cifar_resnets_have_the_published_sizes(name, millions):
    """He et al., table 6, with option-A shortcuts."""
    model = CifarResNet(CIFAR_RESNETS[name], 10, "pad")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("shortcut", ["conv", "pad"])
def test_stage_maps_have_the_published_shapes(shortcut):
    logits, maps = CifarResNet(20, 7, shortcut).eval()(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


@pytest.mark.parametrize("shortcut", ["conv", "pad"])
def test_saved_weights_come_back_with_their_kind_of_shortcut(shortcut, tmp_path):
    model = CifarResNet(20, 5, shortcut).eval()
    save_file(model.state_dict(), tmp_path / "t.safetensors")
    teacher = build_teacher(TeacherSettings(name="resnet20", weights=tmp_path / "t.safetensors"), 5)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(images)[0], model(images)[0])
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert shortcut_of(model.state_dict()) == shortcut


@pytest.mark.parametrize("classifier", ["fc", "classifier", "head"])
def test_other_names_for_classifier_and_shortcuts_are_read(classifier, tmp_path):
    model = CifarResNet(20, 5, "conv").eval()
    renamed = {
        key.replace("linear.", f"{classifier}.").replace(".downsample.", ".shortcut."): value
        for key, value in model.state_dict().items()
    }
    assert renamed.keys() != model.state_dict().keys()
    save_file(renamed, tmp_path / "t.safetensors")
    teacher = build_teacher(TeacherSettings(weights=tmp_path / "t.safetensors"), 5)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(images)[0], model(images)[0])


def test_padded_shortcuts_keep_the_channels_in_the_middle():
    block = CifarResNet(20, 5, "pad").layer2[0].eval()
    for convolution in (block.conv1, block.conv2):
        torch.nn.init.zeros_(convolution.weight)
    images = torch.rand(1, 16, 4, 4)
    with torch.no_grad():
        passed = block(images)
    assert torch.equal(passed[:, 8:24], images[:, :, ::2, ::2])
    assert not passed[:, :8].any()
    assert not passed[:, 24:].any()
