"""What a recipe asks of a dataset."""

import random

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.planning.facts import facts_of, look_at, measure_speeds, own_config, smaller
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import load_data


@pytest.fixture
def photos(tmp_path):
    """Two classes of 30 images of 70 by 50 pixels, which a horizontal or a vertical ramp tells apart."""
    rng = np.random.default_rng(0)
    for label in ("across", "down"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(30):
            ramp = np.linspace(0, 200, 70 if label == "across" else 50)
            plane = np.tile(ramp, (50, 1)) if label == "across" else np.tile(ramp[:, None], (1, 70))
            image = (plane[..., None] + rng.integers(0, 55, (50, 70, 3))).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "photos" / label / f"{i}.png")
    return {"data": {"name": f"imagefolder:{tmp_path / 'photos'}"}}


def test_facts_are_of_the_training_images(photos):
    facts = facts_of(load_dataset(DataSettings(**photos["data"])))
    assert (facts.num_train, facts.num_val, facts.num_classes) == (43, 5, 2)
    assert (facts.side, facts.grey) == (50, False)


def test_grey_images_are_told_by_their_mode(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(10):
            Image.new("L", (9, 9), i).save(tmp_path / label / f"{i}.png")
    assert facts_of(load_dataset(DataSettings(name=f"imagefolder:{tmp_path}"))).grey


def test_ones_own_images_get_the_recipe_and_what_is_set_stays_set(photos):
    config = own_config({**photos, **{"distill": {"epochs": 3}, "budget": {"max_params": "2M"}}})
    assert (config.space.image_size, config.data.val_fraction) == (48, 0.2)
    assert config.distill.augment.hflip == 0.5
    assert config.distill.epochs == 3
    assert config.space.largest(2).params > 2_000_000


def test_the_share_that_validates_is_the_recipe_s_unless_validation_was_given(tmp_path):
    for split, count in (("train", 30), ("val", 6), ("test", 6)):
        write_class_folders(tmp_path / "given" / split, ["a", "b"], count)
    looked_at = look_at({"data": {"name": f"imagefolder:{tmp_path / 'given'}"}})
    assert (looked_at.facts.num_train, looked_at.facts.num_val) == (60, 12)
    write_class_folders(tmp_path / "carved" / "train", ["a", "b"], 100)
    write_class_folders(tmp_path / "carved" / "test", ["a", "b"], 4)
    carved = {"data": {"name": f"imagefolder:{tmp_path / 'carved'}"}}
    assert (look_at(carved).facts.num_train, look_at(carved).facts.num_val) == (160, 40)
    own = look_at({"data": {**carved["data"], "val_fraction": 0.1}})
    assert (own.facts.num_train, own.facts.num_val, len(own.data.val)) == (180, 20, 20)


def test_smaller_students_are_a_part_of_the_space(photos):
    config = look_at(photos).config
    space, rng = config.space, random.Random(1)
    flops = [space.cost(space.sample(rng), 2).flops for _ in range(200)]
    half = smaller(config, 2, 0.5).budget.max_flops
    assert half == pytest.approx(0.5 * max(flops), rel=0.1)
    least = smaller(config, 2, 0.01).budget.max_flops
    assert 0.1 < np.mean([each <= least for each in flops]) < 0.3  # so that there is a choice
    assert smaller(config, 2, 1.0) is None
    one = {"space": {"embed_dim": [96], "depth": [4], "num_heads": [3], "mlp_ratio": [2]}}
    assert smaller(look_at({**photos, **one}).config, 2, 0.1) is None


def test_digits_stay_as_they_are():
    """In a search, and in a fit: a mirrored digit is none."""
    assert own_config({}) == look_at({}).config == RunConfig()
    looked_at = look_at({"distill": {"epochs": 3}})
    config, facts = looked_at.config, looked_at.facts
    assert (config.distill.epochs, config.distill.augment.hflip, config.teacher.name) == (3, 0, "resnet20")
    assert (facts.num_train, facts.num_val, facts.num_classes) == (1294, 144, 10)


def test_who_brings_a_teacher_keeps_it(photos):
    config = look_at({**photos, "teacher": {"name": "resnet32"}}).config
    assert (config.teacher.name, config.teacher.image_size) == ("resnet32", None)
    assert look_at(photos).config.teacher.name != "resnet20"


@pytest.mark.slow
def test_speeds_are_measured_and_nothing_else_happens(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = {"space": {"embed_dim": [48], "depth": [2], "num_heads": [3]}, "teacher": {"image_size": 16}}
    config = look_at({**photos, **tiny}).config
    data = load_data(config)
    speeds = measure_speeds(config, data)
    assert min(speeds.teacher_step_s, speeds.student_step_s, speeds.arch_s) > 0
    assert {path.name for path in (tmp_path / "cache" / "tvt_ray").iterdir()} <= {"decoded", "hashes"}


def test_class_folders_of_noise_have_facts_too(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 12)
    assert facts_of(load_dataset(DataSettings(name=f"imagefolder:{folder}"))).side == 10
