"""Where a trained teacher comes from, and where it is kept: real trainings of a few images."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.teachers.cifar_resnet import CifarResNet
from tvt_ray.teachers.provide import cached_teacher_path, get_teacher, save_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining, teacher_accuracy

pytestmark = pytest.mark.slow

SETTINGS, TRAINING = TeacherSettings(image_size=16), TeacherTraining(epochs=1, hflip=0)


@pytest.fixture
def few(digits):
    parts = ((digits.train, 48), (digits.val, 20), (digits.test, 20))
    train, val, test = (split.take(np.arange(count)) for split, count in parts)
    return dataclasses.replace(digits, train=train, val=val, test=test)


@pytest.fixture
def get(few, tmp_path, monkeypatch, capsys):
    """Asks for the teacher of a few digits: (its weights, where they are, the lines that were said)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def ask(kept_in=None):
        capsys.readouterr()
        teacher, path = get_teacher(SETTINGS, TRAINING, few, kept_in)
        assert not teacher.training
        return teacher.state_dict(), path, capsys.readouterr().err.splitlines()

    return ask


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


def trained_now(lines):
    return any("has no weights yet: training it" in line for line in lines)


def test_a_teacher_is_trained_once_and_found_again(digits, config, teacher, capsys):
    """The session's teacher came from get_teacher: it learned, and asking again reads the same weights."""
    assert teacher_accuracy(teacher, digits.test) > 80
    again, path = get_teacher(config.teacher, config.teacher_training, digits)
    assert "trained earlier" in capsys.readouterr().err
    assert path.exists()
    ours, theirs = again.state_dict(), teacher.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_cached_teachers_are_told_apart_by_all_they_depend_on(digits, few):
    base = cached_teacher_path(TeacherSettings(), TeacherTraining(), digits)
    others = [
        cached_teacher_path(TeacherSettings(name="resnet32"), TeacherTraining(), digits),
        cached_teacher_path(TeacherSettings(), TeacherTraining(epochs=2), digits),
        cached_teacher_path(TeacherSettings(), TeacherTraining(), few),
    ]
    assert len({base, *others}) == 4


def test_a_colon_is_not_part_of_a_files_name(digits):
    path = cached_teacher_path(TeacherSettings(name="timm:resnet18"), TeacherTraining(), digits)
    assert path.name.startswith("timm-resnet18-")
    assert path.suffix == ".safetensors"


def test_given_weights_are_used_and_kept_nowhere(few, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, file = CifarResNet(20, 10), tmp_path / "t.safetensors"
    save_file(model.state_dict(), file)
    teacher, path = get_teacher(TeacherSettings(weights=file), TRAINING, few, tmp_path / "run")
    assert path == file
    assert torch.equal(teacher.backbone.conv1.weight, model.conv1.weight)
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_trained_is_kept_in_the_cache_and_in_the_folder(get, few, tmp_path):
    _, path, lines = get(tmp_path / "run")
    assert trained_now(lines)
    assert path == cached_teacher_path(SETTINGS, TRAINING, few)
    assert [file.name for file in (tmp_path / "run").iterdir()] == [path.name]
    assert (tmp_path / "run" / path.name).read_bytes() == path.read_bytes()


def test_without_a_folder_the_cache_alone_keeps_it(get, tmp_path):
    _, path, _ = get()
    assert path.is_file()
    assert [folder.name for folder in tmp_path.iterdir()] == ["cache"]


def test_the_folders_copy_is_read_when_the_cache_is_empty_and_no_other_run_gets_it(get, tmp_path):
    """It may be a stranger's."""
    trained, path, _ = get(tmp_path / "run")
    path.unlink()
    again, _, lines = get(tmp_path / "run")
    assert lines == [f"teacher: resnet20, trained earlier ({tmp_path / 'run' / path.name})"]
    assert same(again, trained)
    assert not path.exists()


def test_a_teacher_of_the_cache_is_copied_to_the_folder(get, tmp_path):
    trained, path, _ = get()
    again, _, lines = get(tmp_path / "run")
    assert lines == [f"teacher: resnet20, trained earlier ({path})"]
    assert same(again, trained)
    assert (tmp_path / "run" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("junk", [b"", b"junk"], ids=["empty", "junk"])
@pytest.mark.parametrize("place", ["folder", "cache"])
def test_a_damaged_file_is_replaced(get, tmp_path, place, junk):
    trained, path, _ = get(tmp_path / "run")
    content, copy = path.read_bytes(), tmp_path / "run" / path.name
    (copy if place == "folder" else path).write_bytes(junk)
    again, _, _ = get(tmp_path / "run" if place == "folder" else None)
    assert same(again, trained)  # trained anew, from the same seed
    assert path.read_bytes() == copy.read_bytes() == content


def test_a_file_cut_short_is_said_and_trained_anew(get):
    trained, path, _ = get()
    path.write_bytes(path.read_bytes()[:1000])
    again, _, lines = get()
    assert any(line.startswith("teacher: that file is damaged (") for line in lines)
    assert trained_now(lines)
    assert same(again, trained)
    assert not trained_now(get()[2])


def test_a_cache_that_cannot_be_written_costs_one_line(get, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    trained, path, lines = get(tmp_path / "run")
    unkept = [line for line in lines if "is not kept" in line]
    assert len(unkept) == 1
    assert unkept[0].startswith(f"the teacher in {tmp_path / 'file' / 'tvt_ray' / 'teachers'} is not kept: ")
    assert path.parent == tmp_path / "run"
    again, _, lines = get(tmp_path / "run")
    assert not trained_now(lines)  # the folder has it
    assert same(again, trained)


def test_without_any_place_to_write_it_is_trained_all_the_same(get, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first, _, lines = get(tmp_path / "file" / "run")
    assert len([line for line in lines if "is not kept" in line]) == 2
    again, _, lines = get()
    assert trained_now(lines)
    assert same(again, first)


def test_a_saved_teacher_can_be_given_as_weights(teacher, digits, tmp_path):
    save_teacher(teacher, tmp_path / "t.safetensors")
    again, _ = get_teacher(TeacherSettings(weights=tmp_path / "t.safetensors", image_size=16), TRAINING, digits)
    assert same(again.state_dict(), teacher.state_dict())
