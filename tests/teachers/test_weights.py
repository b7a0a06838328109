import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.errors import UsageError
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.cifar_resnet import CifarResNet
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.weights import differences, read_state


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


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "t.pt")
    with pytest.raises(UsageError, match="holds no state dict"):
        read_state(tmp_path / "t.pt")
    torch.save([torch.zeros(2)], tmp_path / "t.pt")
    with pytest.raises(UsageError, match="holds no state dict"):
        read_state(tmp_path / "t.pt")


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}, lambda s: {"state_dict": s}])
def test_a_state_may_be_wrapped(wrap, tmp_path):
    torch.save(wrap({"module.weight": torch.ones(2)}), tmp_path / "t.pt")
    state = read_state(tmp_path / "t.pt")
    assert list(state) == ["weight"]
    assert torch.equal(state["weight"], torch.ones(2))


def test_differences_are_counted_with_an_example_each():
    assert differences(["a", "b"], ["c"]) == "2 missing (such as a), 1 unknown (such as c)"
    assert differences([], ["c"]) == "1 unknown (such as c)"
