"""What the rows of EXPORTS promise together: a student's folder is complete once arch.json is there."""

import random

import pytest
from safetensors.torch import save

from tvt_ray.errors import RunError
from tvt_ray.exports import EXPORTS, FOLDER, StudentCard
from tvt_ray.exports.folder import ARCH_FILE, load_student
from tvt_ray.students import build_student

IN_ORDER = sorted(EXPORTS, key=lambda name: name == FOLDER)  # as a run writes them: FOLDER last


@pytest.fixture
def export(space):
    """Writes a student in the named formats; by default in every one of the table."""
    arch = space.sample(random.Random(0))
    card = StudentCard(space, arch, ("a", "b", "c"), {"test_acc": 91.5})
    weights = save(build_student(space, arch, 3, seed=0).state_dict())

    def write(folder, names=IN_ORDER):
        for name in names:
            EXPORTS[name](folder, card, weights, [{"epoch": 1, "val_acc": 90.0}])

    return write


def test_the_folder_alone_says_that_a_student_is_complete(export, tmp_path):
    assert FOLDER in EXPORTS
    export(tmp_path / "s", [name for name in EXPORTS if name != FOLDER])
    assert not (tmp_path / "s" / ARCH_FILE).exists()
    export(tmp_path / "s", [FOLDER])
    assert (tmp_path / "s" / ARCH_FILE).is_file()


def test_all_rows_together_leave_a_student_that_loads(export, tmp_path):
    export(tmp_path / "s")
    assert load_student(tmp_path / "s").card.results == {"test_acc": 91.5}


def test_whatever_cannot_be_written_leaves_no_arch_json(export, tmp_path):
    """So arch.json is written last: each other file in turn is a folder, which stops the writing there."""
    export(tmp_path / "whole")
    names = [file.name for file in (tmp_path / "whole").iterdir()]
    assert ARCH_FILE in names
    for name in names:
        folder = tmp_path / f"without {name}"
        (folder / name / "in the way").mkdir(parents=True)
        with pytest.raises(RunError, match=rf"{name} cannot be written"):
            export(folder)
        assert not (folder / ARCH_FILE).is_file()


def test_a_student_that_is_written_again_is_replaced(export, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ARCH_FILE).write_text("{}")
    export(tmp_path / "s")
    assert load_student(tmp_path / "s").class_names == ("a", "b", "c")
    assert not [file.name for file in (tmp_path / "s").iterdir() if file.name.startswith(".")]
