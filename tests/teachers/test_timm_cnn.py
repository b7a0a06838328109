import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.errors import UsageError
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.head import teach_head
from tvt_ray.teachers.provide import save_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.timm_cnn import check_name, check_pretrained, check_stages
from tvt_ray.teachers.training import teacher_accuracy
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
    with pytest.raises(UsageError, match="does not fit teacher timm:resnet18"):
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


def test_a_tag_that_is_not_there_is_refused_with_those_that_are():
    check_name("timm:resnet18.a1_in1k")
    with pytest.raises(UsageError, match=r"^timm has no weights 'nope' of resnet18; its tags: a1_in1k, .*tv_in1k"):
        check_name("timm:resnet18.nope")
    with pytest.raises(UsageError, match="timm has no model 'resnet19'"):
        check_name("timm:resnet19.a1_in1k")


@pytest.mark.parametrize("name", ["a/b", "local-dir:/tmp", "https://x.org/y", "/tmp/model", ".a1_in1k", "ResNet18"])
def test_what_names_no_model_of_timm_is_refused(name):
    with pytest.raises(UsageError, match=r"^timm has no model '.*'; near: ") as error:
        check_name(f"timm:{name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["timm:hf-hub:timm/resnet18.a1_in1k", "timm:hf_hub:timm/resnet18.a1_in1k"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_a_model_of_the_hub_is_one_line_where_there_is_no_network(name, pretrained, tmp_path, monkeypatch):
    resnet18(num_classes=2)  # so that timm is there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=rf"{name} could not be (read|downloaded)") as error:
        build_teacher(TeacherSettings(name=name, pretrained=pretrained), 4)
    assert "\n" not in str(error.value)


def test_a_model_that_nobody_trained_cannot_be_started_from():
    settings = TeacherSettings(name="timm:resnet18", pretrained=False)
    teacher = build_teacher(settings, 3)
    check_pretrained(teacher)
    teacher.backbone.model.pretrained_cfg = {"input_size": (3, 224, 224)}
    with pytest.raises(UsageError, match=r"^timm has no pretrained weights of timm:resnet18; give a file as"):
        check_pretrained(teacher)


def test_a_model_of_two_stages_is_refused():
    model = resnet18(num_classes=2)
    check_stages("timm:resnet18", model)
    model.feature_info = model.feature_info[:2]
    with pytest.raises(UsageError, match=r"^timm:resnet18 has 2 stages; a teacher has at least 3: choose another CNN"):
        check_stages("timm:resnet18", model)
    with pytest.raises(UsageError, match="does not offer its stage maps"):
        check_stages("timm:resnet18", torch.nn.Linear(2, 2))


def test_both_classifiers_of_a_model_may_be_of_other_classes(tmp_path):
    ensure_torchvision()
    import timm

    model = timm.create_model("levit_128s", num_classes=7)
    save_file(model.state_dict(), tmp_path / "l.safetensors")
    teacher = build_teacher(TeacherSettings(name="timm:levit_128s", pretrained=tmp_path / "l.safetensors"), 3)
    ours, theirs = teacher.backbone.model.state_dict(), model.state_dict()
    assert [key for key in ours if ours[key].shape != theirs[key].shape] == [
        f"{head}.linear.{part}" for head in ("head", "head_dist") for part in ("weight", "bias")
    ]
    assert torch.equal(ours["stem.conv1.linear.weight"], theirs["stem.conv1.linear.weight"])


def test_a_backbone_without_a_classifier_can_be_started_from(tmp_path):
    state = {f"model.{key}": value for key, value in resnet18(9).state_dict().items() if not key.startswith("fc.")}
    beside = {"criterion.center": torch.ones(3), "projector.0.weight": torch.ones(2, 2)}
    torch.save({"state_dict": {**beside, **state}}, tmp_path / "t.ckpt")
    teacher = build_teacher(TeacherSettings(name="timm:resnet18", pretrained=tmp_path / "t.ckpt"), 4)
    assert torch.equal(teacher.backbone.model.conv1.weight, state["model.conv1.weight"])


def test_a_vit_teaches_with_the_weights_of_a_file_at_another_size(tmp_path):
    """Its positions are resized to its map, logits read what its features are, and it is kept and read again."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    settings = TeacherSettings(name="timm:vit_tiny_patch16_224", pretrained=False, image_size=64)
    assert build_teacher(settings, 4).backbone.model.pos_embed.shape == (1, 17, 192)
    full = timm.create_model("vit_tiny_patch16_224")
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    teacher = build_teacher(settings.with_(pretrained=tmp_path / "full.safetensors"), 4).freeze()
    with torch.no_grad():
        logits, maps, features = teacher.outputs(torch.randn(2, 3, 32, 32), with_features=True)
        assert torch.allclose(teacher.backbone.model.head(features), logits, atol=1e-5)
    assert [tuple(m.shape) for m in maps] == [(2, 192, 4, 4)] * 3
    assert torch.equal(teacher.backbone.model.blocks[0].attn.qkv.weight, full.blocks[0].attn.qkv.weight)
    save_teacher(teacher, tmp_path / "again.safetensors")
    again = build_teacher(settings.with_(weights=tmp_path / "again.safetensors"), 4)
    assert torch.equal(again.backbone.model.pos_embed, teacher.backbone.model.pos_embed)


@pytest.mark.slow
def test_dinov2_reads_images_as_a_teacher(shared_data, digits):
    """Half precision, positions of its own grid: as others publish it."""
    file = shared_data / "pretrained" / "dinov2_small_fp16.safetensors"
    if not file.exists():
        pytest.skip("there are no weights of DINOv2")
    settings = TeacherSettings(name="timm:vit_small_patch14_dinov2", pretrained=file, image_size=56)
    teacher = build_teacher(settings, 10)
    head = teach_head(teacher, digits.train.take(np.arange(120)), seed=0, device=torch.device("cpu"))
    assert head.cv_acc > 50
    assert teacher_accuracy(teacher, digits.test.take(np.arange(100))) > 50
