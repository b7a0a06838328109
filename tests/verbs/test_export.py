"""A student that learned the digits, exported: in its run, away from it, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import tvt_ray
from tests.conftest import call
from tests.data.samples import write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import RunError, UsageError
from tvt_ray.exports import EXPORTS, Export, formats
from tvt_ray.exports.folder import load_student
from tvt_ray.exports.formats import Format
from tvt_ray.inference import OnnxStudent, load_onnx
from tvt_ray.runs.folder import RunFolder

pytestmark = pytest.mark.slow


def test_a_student_in_its_run_is_compared_with_it_on_its_images_and_with_its_teacher(capsys, student, digits):
    code, out, err = call(capsys, "export", student, "--int8", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    whole, small = found["files"]
    assert (whole["format"], whole["path"], whole["int8"]) == ("onnx", str(student / "model.onnx"), False)
    assert (small["format"], small["path"], small["int8"]) == ("onnx", str(student / "model.int8.onnx"), True)
    for each in (whole, small):
        assert each["bytes"] == (student / each["path"]).stat().st_size
        assert each["latency_ms"] > 0
    assert whole["max_abs_diff"] <= 1e-5 < small["max_abs_diff"]
    assert found["checked_on"] == "8 images that validate, of digits"
    assert (found["teacher"]["name"], found["student"]["name"]) == ("resnet20", student.name)
    assert (
        found["teacher"]["params"]
        > found["student"]["params"]
        == sum(parameter.numel() for parameter in load_student(student).parameters())
    )
    assert found["notes"] == []
    # What int8 costs on validation: the figures are those of the files (8-bit products depend on the machine and its
    # threads: by an image), and three images at most.
    assert whole["val_acc"] == pytest.approx(accuracy(whole["path"], digits.val))
    assert small["val_acc"] == pytest.approx(accuracy(small["path"], digits.val), abs=100.1 / len(digits.val))
    assert abs(whole["val_acc"] - small["val_acc"]) <= 100 * 3.1 / len(digits.val)
    lost = accuracy(whole["path"], digits.test) - accuracy(small["path"], digits.test)
    assert small["lost"] == pytest.approx(lost, abs=100.1 / len(digits.test))
    assert small["lost_ci95"][0] <= small["lost"] <= small["lost_ci95"][1]
    assert (whole["lost"], whole["lost_ci95"]) == (None, None)
    card = (student / "README.md").read_text()
    assert f"{small['bytes']:,} bytes instead of {whole['bytes']:,}" in card
    assert card.count("## 8 bits") == 1


def accuracy(path, split):
    names = load_dataset(DataSettings()).class_names
    found = OnnxStudent(Path(path).read_bytes(), num_threads=1).predict([split[i][0] for i in range(len(split))])
    return 100 * sum(names.index(label) == split.labels[i] for i, (label, _) in enumerate(found)) / len(split)


@pytest.mark.night
def test_int8_costs_less_than_a_point_on_images_that_nothing_was_chosen_by(student, digits):
    tvt_ray.export(student, int8=True)
    whole, small = (accuracy(str(student / name), digits.test) for name in ("model.onnx", "model.int8.onnx"))
    assert whole == pytest.approx(load_student(student).card.results["test_acc"])
    assert abs(whole - small) < 1


def test_a_table_says_what_was_written_and_what_it_takes(capsys, student):
    code, out, _ = call(capsys, "export", student, "--format", "pt2")
    assert code == 0
    for said in ("teacher resnet20", "student in PyTorch", "model.pt2", "ms an image", "8 images that validate"):
        assert said in out
    assert f"pt2          {student}/model.pt2\n" in out
    assert f"card         {student}/README.md\n" in out


@pytest.mark.night
def test_a_student_away_from_its_run_says_what_cannot_be_compared(capsys, alone, tmp_path):
    code, out, err = call(capsys, "export", alone, "--int8", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert (
        "--int8 is calibrated on training images, and the student's folder lies in no run that says its images" in err
    )
    code, out, err = call(capsys, "export", alone, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert (found["teacher"], found["checked_on"]) == (None, "noise")
    assert [each["val_acc"] for each in found["files"]] == [None]
    assert len(found["notes"]) == 2
    assert "lies in no run that says its images: the files were compared with the student on noise" in err
    assert "there is no teacher to compare with" in err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["README.md", "model.onnx"]
    assert sorted(file.name for file in alone.iterdir()) == ["arch.json", "metrics.jsonl", "model.safetensors"]


def test_nothing_is_written_into_the_folder_of_a_dataset(alone, tmp_path):
    """Where it would be a class without images from then on."""
    photos = write_class_folders(tmp_path / "photos", [str(digit) for digit in range(10)], 3)
    with pytest.raises(UsageError, match="lies in the dataset's own folder"):
        tvt_ray.export(alone, dataset=f"imagefolder:{photos}", out=photos / "exported")
    with pytest.raises(UsageError, match="lies in the dataset's own folder"):
        tvt_ray.evaluate(alone, f"imagefolder:{photos}", out=photos / "evaluated")
    assert len(list(photos.iterdir())) == 10


@pytest.mark.night
def test_images_of_another_dataset_serve_as_well(alone):
    found = tvt_ray.export(alone, int8=True, dataset="digits")
    assert found.checked_on == "8 images that validate, of digits"
    assert found.files[1].val_acc is not None


@pytest.mark.night
def test_a_dataset_that_was_moved_is_no_reason_not_to_export(student):
    run = RunFolder(student.parents[1])
    run.claim(run.config().with_(data={"name": "imagefolder:/nowhere/photos"}))
    found = tvt_ray.export(student, "timm", out=student.parent / "timm")
    assert found.checked_on == "noise"
    assert "the run's images are not at hand (dataset 'imagefolder:/nowhere/photos': there is no" in found.notes[0]
    assert found.teacher.name == "resnet20"


def test_for_timm_a_folder_of_its_own_is_enough(student, tmp_path):
    from tvt_ray.exports import timm_vit  # noqa: F401
    import timm  # isort: skip

    (found,) = tvt_ray.export(student, "timm", out=tmp_path / "hub").files
    assert found.max_abs_diff == 0
    assert sorted(file.name for file in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    images, own = torch.randn(3, 3, 32, 32), load_student(student)
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(model(images), own(images))


def test_a_file_that_computes_something_else_is_not_kept(student, tmp_path, monkeypatch):
    def write(folder, loaded, wish):
        """Another student's weights, as a wrong exporter would write."""
        state = loaded.student.state_dict()
        other = load(save({name: value + 1e-3 for name, value in state.items()}))
        loaded.student.load_state_dict(other)
        names = formats.PROGRAM.write(folder, loaded, wish)
        loaded.student.load_state_dict({name: value - 1e-3 for name, value in other.items()})
        return names

    wrong = Format(write, formats.PROGRAM.load, formats.PROGRAM.check)
    monkeypatch.setitem(EXPORTS, "wrong", Export(on_demand=wrong))
    with pytest.raises(RunError, match=r"model.pt2 does not compute what the student does: logits differ by up to"):
        tvt_ray.export(student, "wrong", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_card_that_people_completed_is_kept(student, tmp_path):
    tvt_ray.export(student, "timm")
    card = (student / "README.md").read_text()
    assert "imagefolder" not in card
    (student / "README.md").write_text(card.replace("license: other", "license: mit"))
    tvt_ray.export(student, "timm")
    tvt_ray.export(student, "timm", out=tmp_path / "hub")
    assert "license: mit" in (student / "README.md").read_text()
    assert "license: mit" in (tmp_path / "hub" / "README.md").read_text()


def test_wrong_usage_is_one_line(capsys, student, tmp_path):
    (tmp_path / "file").write_text("")
    for argv, said in [
        ([student, "--format", "tflite"], "unknown format 'tflite'; choices: onnx, pt2, timm"),
        ([student, "--format", "folder"], "unknown format 'folder'; choices: onnx, pt2, timm"),
        ([student, "--format", "pt2", "--int8"], "--int8 is of ONNX files: --format onnx; got pt2"),
        ([tmp_path], "holds no trained student: there is no arch.json"),
        ([student, "--out", tmp_path / "file"], "--out is a folder"),
        ([student, "--out", tmp_path / "file" / "below"], "cannot be written"),
        ([student, "--dataset", "imagefolder:/nowhere"], "there is no /nowhere"),
    ]:
        code, out, err = call(capsys, "export", *argv)
        assert (code, out, err.count("\n")) == (2, "", 1), argv
        assert said in err


@pytest.mark.night
def test_nothing_of_the_process_is_changed(student, tmp_path):
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    tvt_ray.export(student, "onnx", out=tmp_path / "out")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.night
def test_what_takes_pixels_names_images_as_the_student_does(student, digits, tmp_path):
    tvt_ray.export(student, pixels=True, out=tmp_path / "out")
    images = [digits.test[i][0] for i in range(60)]
    ours, theirs = (
        load_student(student).predict(images),
        load_onnx(str(tmp_path / "out" / "model.onnx")).predict(images),
    )
    assert [label for label, _ in ours] == [label for label, _ in theirs]
    assert [p for _, p in ours] == pytest.approx([p for _, p in theirs], abs=0.02)
