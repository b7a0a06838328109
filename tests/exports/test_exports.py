"""What the rows of EXPORTS promise together: a student's folder is complete once arch.json is there."""

import random

import pytest
from safetensors.torch import save

from tvt_ray.errors import RunError
from tvt_ray.exports import EXPORTS, FOLDER, StudentCard, describe_formats, write_trained
from tvt_ray.exports.folder import ARCH_FILE, load_student
from tvt_ray.vits import build_student


@pytest.fixture
def finished(space):
    """A card, weights, and metrics by epoch."""
    arch = space.sample(random.Random(0))
    weights = save(build_student(space, arch, 3, seed=0).state_dict())
    return StudentCard(space, arch, ("a", "b", "c"), {"test_acc": 91.5}), weights, [{"epoch": 1, "val_acc": 90.0}]


def test_every_row_is_written_when_a_student_is_trained_or_on_demand():
    assert all(export.when_trained or export.on_demand for export in EXPORTS.values())
    assert describe_formats() == ["onnx", "pt2", "timm"]
    assert EXPORTS["timm"].when_trained is not None


def test_the_folder_alone_says_that_a_student_is_complete(finished, tmp_path):
    for name, export in EXPORTS.items():
        if name != FOLDER and export.when_trained:
            export.when_trained(tmp_path / "s", *finished)
    assert sorted(file.name for file in (tmp_path / "s").iterdir()) == ["README.md", "config.json"]
    EXPORTS[FOLDER].when_trained(tmp_path / "s", *finished)
    assert (tmp_path / "s" / ARCH_FILE).is_file()


def test_all_rows_together_leave_a_student_that_loads(finished, tmp_path):
    write_trained(tmp_path / "s", *finished)
    assert load_student(tmp_path / "s").card.results == {"test_acc": 91.5}


def test_whatever_cannot_be_written_leaves_no_arch_json(finished, tmp_path):
    """So arch.json is written last: each other file in turn is a folder, which stops the writing there."""
    write_trained(tmp_path / "whole", *finished)
    names = [file.name for file in (tmp_path / "whole").iterdir()]
    assert ARCH_FILE in names
    for name in names:
        folder = tmp_path / f"without {name}"
        (folder / name / "in the way").mkdir(parents=True)
        with pytest.raises(RunError, match=rf"{name} cannot be written"):
            write_trained(folder, *finished)
        assert not (folder / ARCH_FILE).is_file()


def test_a_student_that_is_written_again_is_replaced(finished, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ARCH_FILE).write_text("{}")
    write_trained(tmp_path / "s", *finished)
    assert load_student(tmp_path / "s").class_names == ("a", "b", "c")
    assert not [file.name for file in (tmp_path / "s").iterdir() if file.name.startswith(".")]
