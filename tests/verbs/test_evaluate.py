"""A student that learned the digits, on those and on other images of them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch
from PIL import Image

import tvt_ray
from tests.conftest import call
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.proxies.probe import ProbeSettings
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.storage.locations import RemotePath
from tvt_ray.verbs.evaluate import evaluate


def write(split, folder, name=str):
    """A split's images as a folder per class."""
    for place, label in enumerate(split.labels):
        path = folder / name(label) / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        split[place][0].save(path)
    return f"imagefolder:{folder}"


def make_run(folder, name):
    """A run that says which images it is of, and holds nothing else."""
    run, config = RunFolder(folder), load_config(None, [{"data": {"name": name}}])
    run.make()
    run.claim(config)
    run.keep_data(DataIdentity.of(load_dataset(config.data), ProbeSettings(num_images=10)))
    return run


def test_a_student_is_as_good_as_its_folder_says(student, digits):
    found = tvt_ray.evaluate(student)
    loaded = load_student(student)
    assert found.quality.top1 == loaded.card.results["test_acc"] > 40  # chance is 10
    with torch.no_grad():
        images = torch.stack([loaded.transform(image) for image, _ in (digits.test[i] for i in range(359))])
        predicted = loaded(images).argmax(1).numpy()
    table = np.zeros((10, 10), int)
    np.add.at(table, (digits.test.labels, predicted), 1)
    assert np.array(found.quality.confusion).tolist() == table.tolist()
    assert (found.dataset, found.split, found.quality.num_images, found.notes) == ("digits", "test", 359, ())
    assert found.fingerprint == digits.fingerprint()


def test_json_and_page_are_written_into_the_run_and_not_into_the_students_folder(student):
    """They show images, and people pass students on."""
    before = sorted(student.rglob("*"))
    found = tvt_ray.evaluate(student, "digits")
    folder = student.parent.parent / "evaluations" / student.name / f"digits-test-{found.fingerprint[:8]}"
    assert sorted(student.rglob("*")) == before
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.html", "evaluation.json"]
    assert (found.page, found.file) == (str(folder / "evaluation.html"), str(folder / "evaluation.json"))
    assert json.loads((folder / "evaluation.json").read_text()) == found.to_json()
    page = (folder / "evaluation.html").read_text()
    assert len(found.mistakes) == page.count("<figure>") == 24
    assert found.mistakes[0].image in page
    assert tvt_ray.load_student(student).card.class_names[3] == "3"  # the folder is still a student's


def test_mistakes_are_the_images_that_they_say(student, digits):
    loaded = load_student(student)
    first, *others = tvt_ray.evaluate(student).mistakes
    image, label = digits.test[int(first.image.removeprefix("test image "))]
    ((predicted, probability),) = loaded.predict([image])
    assert (first.truth, first.predicted) == (str(label), predicted)
    assert first.confidence == pytest.approx(100 * probability, abs=1e-3)
    assert all(first.confidence >= other.confidence for other in others)


@pytest.mark.parametrize(
    ("split", "num_images", "note"),
    [
        ("train", 1294, "these images were trained on"),
        ("val", 144, "these images chose among students and weights"),
        ("all", 1797, "training images are among these"),
    ],
)
def test_what_training_has_seen_is_said(split, num_images, note, student, capsys):
    found = tvt_ray.evaluate(student, split=split)
    assert found.quality.num_images == num_images
    assert [told.startswith(note) for told in found.notes] == [True]
    assert f"note: {note}" in capsys.readouterr().err
    assert found.notes[0] in Path(found.page).read_text()


def test_the_runs_own_way_to_split_is_kept(student):
    """Otherwise images that were trained on would be among those that test."""
    config = (student.parents[1] / "config.yaml").read_text()
    (student.parents[1] / "config.yaml").write_text(config.replace("test_fraction: 0.2", "test_fraction: 0.4"))
    assert tvt_ray.evaluate(student).quality.num_images == 719
    assert tvt_ray.evaluate(student, settings={"data": {"test_fraction": 0.1}}).quality.num_images == 180


def test_images_of_another_split_that_were_trained_on_are_counted(student, digits):
    found = tvt_ray.evaluate(student, settings={"data": {"split_seed": 5}})
    assert found.fingerprint != digits.fingerprint()
    pixels = {digits.train[place][0].tobytes() for place in range(len(digits.train))}
    other = load_dataset(DataSettings(split_seed=5)).test
    count = sum(other[place][0].tobytes() in pixels for place in range(len(other)))
    assert 200 < count < 300
    assert found.notes[0].startswith(f"{count} of the 359 images were trained on")


def test_other_images_are_matched_by_class_names(student, digits, tmp_path):
    """A folder of three of the ten classes; the accuracy is that of those images."""
    few = digits.test.take(np.flatnonzero(np.isin(digits.test.labels, (3, 5, 8))))
    found = tvt_ray.evaluate(student, write(few, tmp_path / "few"), split="all")
    own = np.array(tvt_ray.evaluate(student).quality.confusion)
    assert np.array(found.quality.confusion)[[3, 5, 8]].tolist() == own[[3, 5, 8]].tolist()
    assert sum(each.support for each in found.quality.classes) == len(few)
    assert [each.recall is None for each in found.quality.classes].count(True) == 7
    assert found.notes[-1].startswith("the dataset has 3 of the student's 10 classes, not 0, 1, 2, 4, 6, 7, 9")
    assert all(mistake.image.startswith(("3/", "5/", "8/")) for mistake in found.mistakes)


def test_a_split_that_is_carved_is_said_of_other_data(student, digits, tmp_path):
    found = tvt_ray.evaluate(student, write(digits.test, tmp_path / "photos"))
    assert found.notes == ("the split test is carved: 20% of the images; --split all takes every image",)
    assert found.quality.num_images == 72


def test_copies_of_training_images_in_another_dataset_are_counted(alone, digits, tmp_path):
    """The run is on a folder of images, the evaluation on another with some of the same files."""
    name = write(digits.train.take(np.arange(200)), tmp_path / "trained")
    run = make_run(tmp_path / "photos_run", name)
    student = shutil.copytree(alone, run.path / "distill" / "a")
    other = write(digits.test, tmp_path / "other")
    trained = load_dataset(run.config().data).train
    for place in range(7):
        path = trained.source.encoded[trained.indices[place]]
        shutil.copy(path, tmp_path / "other" / path.parent.name / f"copy{place}.png")
    found = tvt_ray.evaluate(student, other, split="all")
    assert found.notes == ("7 of the 366 images were trained on: the accuracy there says nothing of new images",)
    shutil.rmtree(tmp_path / "trained")
    assert tvt_ray.evaluate(student, other, split="all").notes == (
        f"whether images were trained on is not known: {name} is not at hand as it was then",
    )


def test_a_folder_without_its_run_is_evaluated_on_what_is_named(alone, student):
    found = tvt_ray.evaluate(alone, "digits")
    assert found.quality == tvt_ray.evaluate(student).quality
    assert found.notes[0] == "whether images were trained on is not known: digits is not at hand as it was then"
    with pytest.raises(UsageError, match="--dataset says what to evaluate on"):
        tvt_ray.evaluate(alone)


def test_transparent_images_have_the_background_that_the_student_knows(alone, student, tmp_path):
    entry = json.loads((alone / "arch.json").read_text())
    (alone / "arch.json").write_text(json.dumps({**entry, "background": "#000000"}))
    black = np.zeros((8, 8, 4), np.uint8)
    for label in ("1", "2"):
        (tmp_path / "clear" / label).mkdir(parents=True)
        for number in range(3):
            black[0, 0] = (number, int(label), 9, 255)
            Image.fromarray(black).save(tmp_path / "clear" / label / f"{number}.png")
    found = tvt_ray.evaluate(alone, str(tmp_path / "clear"), split="all")
    white, seen = load_student(student), load_student(alone)
    clear = [Image.open(path) for path in sorted((tmp_path / "clear").glob("*/*.png"))]
    sure = {each: np.mean([p for _, p in each.predict(clear)]) for each in (white, seen)}
    assert found.quality.mean_confidence == pytest.approx(100 * sure[seen], abs=1e-3)
    assert abs(sure[seen] - sure[white]) > 1e-3


def test_a_student_in_a_bucket_is_evaluated_there(student, tmp_path):
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    path = RemotePath(store, f"run/distill/{student.name}", f"s3://run/distill/{student.name}")
    found = evaluate(path)
    assert found.quality.top1 == load_student(student).card.results["test_acc"]
    assert found.page.startswith(f"s3://run/evaluations/{student.name}/digits-test-")
    assert len(list(student.parent.parent.glob(f"evaluations/{student.name}/*/evaluation.*"))) == 2


def test_a_student_of_a_run_is_evaluated_as_its_folder_is(student):
    listed = TrainedStudent(student.name, 1, 1, 0.0, 0.0, 0.0, str(student))
    assert tvt_ray.evaluate(listed) == tvt_ray.evaluate(student)


def test_classes_that_the_student_does_not_know_are_refused_before_any_work(alone, digits, tmp_path):
    name = write(digits.test.take(np.arange(60)), tmp_path / "d", lambda label: f"digit{label}")
    with pytest.raises(UsageError, match=r"does not know digit0, .*: it knows 0, 1, .*; the dataset has digit0"):
        tvt_ray.evaluate(alone, name, split="all")
    assert not alone.with_name(f"{alone.name}-evaluations").exists()


def test_names_in_place_of_numbers_are_assumed_in_order(alone, digits, tmp_path):
    entry = json.loads((alone / "arch.json").read_text())
    entry["class_names"] = [f"digit {name}" for name in "abcdefghij"]
    (alone / "arch.json").write_text(json.dumps(entry))
    found = tvt_ray.evaluate(alone, "digits")
    assert found.notes[0].startswith("the dataset has numbers and no class names: they are taken in the student's")
    assert "0 is digit a, 1 is digit b" in found.notes[0]
    assert found.quality.top1 == entry["results"]["test_acc"]


def test_the_process_is_as_it_was(student):
    state = torch.random.get_rng_state()
    tvt_ray.evaluate(student)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_wrong_usage_is_one_line(student, tmp_path):
    with pytest.raises(UsageError, match="unknown split 'dev'; choices: train, val, test, all"):
        tvt_ray.evaluate(student, split="dev")
    with pytest.raises(UsageError, match="holds no trained student"):
        tvt_ray.evaluate(tmp_path, "digits")
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        tvt_ray.evaluate(student, "digit")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        tvt_ray.evaluate(student, out=tmp_path / "file" / "out")


def test_a_folder_that_cannot_be_written_to_costs_the_page_and_not_the_figures(student, monkeypatch, tmp_path, capsys):
    run, is_open = student.parents[1], os.access
    monkeypatch.setattr(os, "access", lambda place, mode: is_open(place, mode) and run not in (place, *place.parents))
    code, out, err = call(capsys, "evaluate", student, "--json")
    found = json.loads(out)
    assert (code, found["page"], found["file"]) == (0, None, None)
    assert found["top1"] == tvt_ray.evaluate(student, out=tmp_path / "elsewhere").to_json()["top1"]
    assert (tmp_path / "elsewhere" / "evaluation.html").is_file()
    assert "no page is written: " in err
    assert not (run / "evaluations").exists()
    code, out, _ = call(capsys, "evaluate", student)
    assert code == 0
    assert "accuracy     " in out
    assert "page         " not in out
