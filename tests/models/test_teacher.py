import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.data import DataSettings, load_dataset
from tvt_ray.distill.teacher import save_teacher, teacher_accuracy
from tvt_ray.errors import UsageError
from tvt_ray.models.preprocess import normalize, resize
from tvt_ray.models.teacher import CIFAR_RESNETS, CifarResNet, TeacherSettings, build_teacher


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


def test_pickled_state_dicts_are_read_without_unpickling_objects(tmp_path):
    model = CifarResNet(20, 5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "t.pth")
    teacher = build_teacher(TeacherSettings(weights=tmp_path / "t.pth"), 5)
    assert torch.equal(teacher.backbone.conv1.weight, model.conv1.weight)
    torch.save({"state_dict": model}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="cannot be read"):
        build_teacher(TeacherSettings(weights=tmp_path / "evil.pth"), 5)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    save_file(CifarResNet(20, 5).state_dict(), tmp_path / "t.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    cases = [
        (TeacherSettings(name="resnet56", weights=tmp_path / "t.safetensors"), 5, "does not fit teacher resnet56"),
        (TeacherSettings(weights=tmp_path / "t.safetensors"), 3, "knows 5 classes, the dataset has 3"),
        (TeacherSettings(weights=tmp_path / "absent.safetensors"), 5, "there is no file"),
        (TeacherSettings(weights=tmp_path / "junk.safetensors"), 5, "cannot be read"),
        (TeacherSettings(name="timm:resnet19"), 5, "resnet18"),
    ]
    for settings, num_classes, message in cases:
        with pytest.raises(UsageError, match=message) as error:
            build_teacher(settings, num_classes)
        assert "\n" not in str(error.value)


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match=r"did you mean 'resnet56'.*resnet110, timm:NAME"):
        TeacherSettings(name="resnet57")


def test_timm_cnn_as_teacher_from_a_local_file(tmp_path):
    import timm

    model = timm.create_model("resnet18", num_classes=4).eval()
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
    import timm

    model = timm.create_model("resnet18", num_classes=1000)
    save_file(model.state_dict(), tmp_path / "r18.safetensors")
    teacher = build_teacher(TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "r18.safetensors"), 4)
    assert torch.equal(teacher.backbone.model.conv1.weight, model.conv1.weight)
    assert teacher.backbone.model.fc.out_features == 4
    save_file({"conv1.weight": model.conv1.weight.detach()}, tmp_path / "part.safetensors")
    with pytest.raises(UsageError, match="does not fit timm:resnet18"):
        build_teacher(TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "part.safetensors"), 4)


def test_a_teacher_sees_its_own_size_and_normalisation(tmp_path):
    settings = TeacherSettings(name="timm:inception_v4", pretrained=False, image_size=96)  # mean and std of 0.5
    teacher, raw = build_teacher(settings, 3).freeze(), torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        ours, _ = teacher(normalize(raw))
        theirs, _ = teacher.backbone(resize((raw - 0.5) / 0.5, 96))
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_published_resnet56_reaches_its_accuracy(shared_data):
    """Teacher, normalisation and loader are right: 83.20 % was measured independently on these re-encoded images."""
    data = load_dataset(DataSettings(name=f"parquet:{shared_data / 'cifar10'}"))
    weights = shared_data / "resnet_cifar10_weights" / "resnet56_cifar10.safetensors"
    teacher = build_teacher(TeacherSettings(name="resnet56", weights=weights), 10)
    torch.set_num_threads(2)
    assert teacher_accuracy(teacher, data.test) == pytest.approx(83.20, abs=0.05)
    torch.set_num_threads(1)
