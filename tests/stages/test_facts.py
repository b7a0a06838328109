"""What a recipe asks of a dataset."""

import random

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.runs.config import RunConfig
from tvt_ray.stages.facts import config_for, facts_of, measure_speeds, own_config, smaller
from tvt_ray.stages.setup import load_data


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
    assert (facts.side, facts.grey, facts.val_is_carved) == (50, False, True)


def test_grey_images_are_told_by_their_mode(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(10):
            Image.new("L", (9, 9), i).save(tmp_path / label / f"{i}.png")
    assert facts_of(load_dataset(DataSettings(name=f"imagefolder:{tmp_path}"))).grey


def test_ones_own_images_get_the_recipe_and_what_is_set_stays_set(photos):
    config = own_config([photos, {"distill": {"epochs": 3}, "budget": {"max_params": "2M"}}])
    assert (config.space.image_size, config.data.val_fraction) == (48, 0.2)
    assert config.distill.augment.hflip == 0.5
    assert config.distill.epochs == 3
    assert config.space.largest(2).params > 2_000_000


def test_smaller_students_are_a_part_of_the_space(photos):
    config, _ = config_for([photos])
    space, rng = config.space, random.Random(1)
    flops = [space.cost(space.sample(rng), 2).flops for _ in range(200)]
    half = smaller(config, 2, 0.5).budget.max_flops
    assert half == pytest.approx(0.5 * max(flops), rel=0.1)
    least = smaller(config, 2, 0.01).budget.max_flops
    assert 0.1 < np.mean([each <= least for each in flops]) < 0.3  # so that there is a choice
    assert smaller(config, 2, 1.0) is None
    one = {"space": {"embed_dim": [96], "depth": [4], "num_heads": [3], "mlp_ratio": [2]}}
    assert smaller(config_for([photos, one])[0], 2, 0.1) is None


def test_digits_stay_as_they_are():
    """In a search, and in a fit: a mirrored digit is none."""
    assert own_config([]) == config_for([])[0] == RunConfig()
    config, facts = config_for([{"distill": {"epochs": 3}}])
    assert (config.distill.epochs, config.distill.augment.hflip, config.teacher.name) == (3, 0, "resnet20")
    assert (facts.num_train, facts.num_val, facts.num_classes) == (1294, 144, 10)


def test_who_brings_a_teacher_keeps_it(photos):
    config, _ = config_for([photos, {"teacher": {"name": "resnet32"}}])
    assert (config.teacher.name, config.teacher.image_size) == ("resnet32", None)
    assert config_for([photos])[0].teacher.name != "resnet20"


def test_speeds_are_measured_and_nothing_else_happens(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = {"space": {"embed_dim": [48], "depth": [2], "num_heads": [3]}, "teacher": {"image_size": 16}}
    config, _ = config_for([photos, tiny])
    data = load_data(config)
    speeds = measure_speeds(config, data)
    assert min(speeds.teacher_step_s, speeds.student_step_s, speeds.arch_s) > 0
    assert {path.name for path in (tmp_path / "cache" / "tvt_ray").iterdir()} <= {"decoded", "hashes"}


def test_class_folders_of_noise_have_facts_too(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 12)
    assert facts_of(load_dataset(DataSettings(name=f"imagefolder:{folder}"))).side == 10
