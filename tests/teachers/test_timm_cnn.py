import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.errors import UsageError
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.provide import save_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.timm_cnn import check_name
from tvt_ray.vision_compat import ensure_torchvision


def resnet18(num_classes):
    ensure_torchvision()
    import timm

    return timm.create_model("resnet18", num_classes=num_classes)


def test_timm_cnn_as_teacher_from_a_local_file(tmp_path):
    model = resnet18(num_classes=4).eval()
    save_file(model.state_dict(), tmp_path / "r18.safetensors")
    settings = TeacherSettings(name="timm:resnet18", weights=tmp_path / "r18.safetensors", image_size=64)
    teacher, images = build_teacher(settings, 4), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, maps = teacher(images)
        assert torch.allclose(logits, model(images), atol=1e-5)
    assert [tuple(m.shape) for m in maps] == [(2, 128, 8, 8), (2, 256, 4, 4), (2, 512, 2, 2)]
    save_teacher(teacher, tmp_path / "again.safetensors")
    build_teacher(settings.model_copy(update={"weights": tmp_path / "again.safetensors"}), 4)
    with pytest.raises(UsageError, match="knows 4 classes, the dataset has 3"):
        build_teacher(settings, 3)


def test_timm_training_starts_from_a_local_backbone_of_other_classes(tmp_path):
    model = resnet18(num_classes=1000)
    save_file(model.state_dict(), tmp_path / "r18.safetensors")
    teacher = build_teacher(TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "r18.safetensors"), 4)
    assert torch.equal(teacher.backbone.model.conv1.weight, model.conv1.weight)
    assert teacher.backbone.model.fc.out_features == 4
    save_file({"conv1.weight": model.conv1.weight.detach()}, tmp_path / "part.safetensors")
    with pytest.raises(UsageError, match="does not fit timm:resnet18"):
        build_teacher(TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "part.safetensors"), 4)


def test_given_weights_need_no_pretrained_ones(tmp_path):
    """Nothing is downloaded, whatever `pretrained` says."""
    model = resnet18(num_classes=4)
    save_file(model.state_dict(), tmp_path / "r18.safetensors")
    settings = TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "absent.safetensors")
    teacher = build_teacher(settings, 4, tmp_path / "r18.safetensors")
    assert torch.equal(teacher.backbone.model.fc.weight, model.fc.weight)


def test_unknown_models_are_refused_with_near_ones():
    check_name("timm:resnet18")
    with pytest.raises(UsageError, match=r"timm has no model 'resnet19'; near: .*resnet18.*list_models\(\) lists all"):
        check_name("timm:resnet19")
