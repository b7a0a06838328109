"""Weights that somebody gives are measured on images: which are taken, in which order, and whether at all."""

import pytest
import torch

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.given import given_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining, judge, train_teacher

pytestmark = pytest.mark.slow  # a teacher is trained

SETTINGS = TeacherSettings(name="resnet20")


@pytest.fixture(scope="module")
def data():
    return load_dataset(DataSettings())


@pytest.fixture(scope="module")
def trained(data):
    """The state of a teacher that knows the digits a little."""
    torch.manual_seed(0)
    teacher, accuracy = train_teacher(SETTINGS, TeacherTraining(epochs=3, batch_size=64), data)
    assert accuracy > 50
    return {key: value.clone() for key, value in teacher.backbone.network.state_dict().items()}


@pytest.fixture
def given(data, tmp_path):
    def given(content):
        torch.save(content, tmp_path / "t.pth")
        return given_teacher(SETTINGS.model_copy(update={"weights": tmp_path / "t.pth"}), data)

    return given


def drawn():
    torch.manual_seed(1)
    return build_teacher(SETTINGS, 10).backbone.network.state_dict()


def same(teacher, state):
    return all(torch.equal(value, state[key]) for key, value in teacher.backbone.network.state_dict().items())


@pytest.mark.parametrize("average", ["good", "damaged"])
def test_of_several_the_best_on_validation_is_taken(given, trained, capsys, average):
    """Also where a moving average was never updated."""
    states = (drawn(), trained) if average == "good" else (trained, drawn())
    teacher = given({"model": states[0], "model_ema": states[1]})
    assert same(teacher, trained)
    name = "model_ema" if average == "good" else "model"
    assert f"those under {name} are taken" in capsys.readouterr().err


def test_rows_are_put_in_the_order_of_the_datasets_classes(given, trained, data, capsys):
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    turned = {key: value[order] if key.startswith("linear") else value for key, value in trained.items()}
    teacher = given({"state_dict": turned, "class_to_idx": {str(digit): row for row, digit in enumerate(order)}})
    assert same(teacher, trained)
    assert "its classes are put in the dataset's order" in capsys.readouterr().err
    assert judge(teacher, data).worth_following


def test_what_knows_nothing_is_refused(given, trained):
    order = [*range(1, 10), 0]
    turned = {key: value[order] if key.startswith("linear") else value for key, value in trained.items()}
    for content in (turned, drawn(), {"state_dict": turned, "classes": list("abcdefghij")}):
        with pytest.raises(UsageError, match=r"t\.pth knows nothing of these images: it names .* % of 144") as error:
            given(content)
        assert "\n" not in str(error.value)
    assert "it names its classes a, b, c" in str(error.value)


def test_names_of_other_classes_change_nothing(given, trained):
    assert same(given({"state_dict": trained, "class_to_idx": {"cat": 0}}), trained)
