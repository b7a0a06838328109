"""A config from what a dataset is like, and how long training takes here."""

import dataclasses
import itertools
import random

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.samples import write_class_folders
from tests.teachers.test_published import hub_file
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.survey import IMAGE_SIZES
from tvt_ray.errors import UsageError
from tvt_ray.planning.estimate import measure_speeds, smaller
from tvt_ray.planning.facts import DataFacts, Speeds, steps_per_epoch
from tvt_ray.planning.inherited import (
    BACKBONE,
    MOST_STEPS,
    image_size_on_stages,
    inherited_seconds,
    inherits,
    num_learned,
)
from tvt_ray.planning.recipe import (
    STUDENT_FLOOR,
    TEACHER_FLOOR,
    affordable,
    batch_size,
    facts_of,
    look_at,
    own_config,
    patch_size,
    phases,
    recipe,
    refined_epochs,
    val_fraction,
    widths,
    with_lengths,
)
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.inputs import load_data
from tvt_ray.vits.budget import Budget


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
    asked = {**photos, **{"distill": {"epochs": 3}, "budget": {"max_params": "2M"}}}
    for config, size in ((own_config(asked), 128), (look_at(asked, "patch").config, 48)):
        assert (config.space.image_size, config.data.val_fraction) == (size, 0.2)
        assert config.distill.augment.hflip == 0.5
        assert config.distill.epochs == 3
        assert config.space.largest(2).params > 2_000_000
        assert (config.teacher.name, config.teacher.pretrained) == ("timm:tf_efficientnet_lite0", True)


def test_students_begin_with_the_stages_of_a_teacher_that_others_trained(photos, tmp_path, monkeypatch):
    config = look_at(photos).config
    assert (config.space.name, config.space.backbone) == ("vit", "tf_efficientnet_lite0")
    assert config.space.stem == ("stage5",)
    assert look_at(photos, all_cuts=True).config.space.stem == ("stage3", "stage4", "stage5")  # of 8 and 16 pixels
    small = look_at({**photos, "budget": {"max_params": "400k"}}).config
    assert (small.space.stem, small.budget.max_params) == (("stage4",), 400_000)
    assert config.budget.max_params == 1_100_000
    assert inherits(config)
    assert config.distill.learn_from == "train and val"  # validation was carved
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub_file(tmp_path, "timm/resnet10t.c3_in1k", "model.safetensors", {"conv1.weight": torch.zeros(3)})
    named = look_at({**photos, "teacher": {"name": "timm:resnet10t"}}).config
    assert (named.space.backbone, named.space.stem) == ("resnet10t", ("stage2",))
    for asked in (
        {"teacher": {"name": "resnet32"}},
        {"teacher": {"name": "timm:resnet10t", "pretrained": False}},
        {"space": {"num_heads": [2]}},
        {"space": {"name": "pit", "image_size": 64}},
    ):
        assert not inherits(look_at({**photos, **asked}).config)


def test_students_of_a_vit_begin_with_some_of_its_weights(photos, tmp_path, capsys):
    import timm
    from safetensors.torch import save_file

    file = tmp_path / "vit.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=5).state_dict(), file)
    teacher = {"name": "timm:vit_tiny_patch16_224", "pretrained": str(file), "image_size": 64}
    config = look_at({**photos, "teacher": teacher}).config
    assert (config.space.name, config.distill.init) == ("autoformer", str(file))
    assert "does not run one stage of convolutions after the other" in capsys.readouterr().err
    assert look_at({**photos, "teacher": {"name": "resnet32"}}).config.distill.init is None


def test_a_teacher_that_timm_does_not_have_is_one_line(photos, capsys):
    with pytest.raises(UsageError, match=r"^timm has no model 'resnet999'; near: "):
        look_at({**photos, "teacher": {"name": "timm:resnet999"}})
    assert "drawn weights" not in capsys.readouterr().err


def test_a_cut_that_is_named_is_the_only_one(photos):
    space = {"name": "vit", "backbone": "tf_efficientnet_lite0", "stem": ["stage4"]}
    config = look_at({**photos, "space": space}, all_cuts=True).config
    assert (config.space.stem, config.space.image_size) == (("stage4",), 128)
    assert inherits(config)


@pytest.mark.parametrize(
    ("side", "has_gpu", "size"),
    [(28, False, 128), (159, False, 128), (160, False, 160), (2000, False, 160), (96, True, 128), (2000, True, 224)],
)
def test_students_on_stages_see_large_photos_larger(side, has_gpu, size):
    """With 160 pixels students of the groceries' photos, which have those, ended 2 to 3 points higher than with 128."""
    assert image_size_on_stages(side, has_gpu) == size


def test_auto_is_the_teacher_that_is_to_be_had(photos):
    config = look_at({**photos, "teacher": {"name": "auto"}}).config
    assert config == look_at(photos).config
    assert look_at({**photos, "teacher": {"name": "auto"}}, "patch").config.teacher.name == "timm:tf_efficientnet_lite0"


def test_without_weights_and_network_all_begins_with_drawn_ones_and_it_is_said(photos, monkeypatch, capsys):
    def away():
        raise UsageError("the pretrained weights of timm:tf_efficientnet_lite0 are not on this machine")

    monkeypatch.setattr("tvt_ray.planning.recipe.choose_published", away)
    config = look_at(photos).config
    assert (config.teacher.name, config.teacher.pretrained) == ("timm:resnet10t", False)
    assert not inherits(config)
    assert "teacher: trained from drawn weights: the pretrained weights of timm:tf_eff" in capsys.readouterr().err
    assert (config.space.name, config.space.backbone, config.space.stem) == ("vit", BACKBONE, ("stage5",))
    assert (config.space.image_size, config.teacher.image_size) == (128, 48)
    assert (config.distill.stem, config.distill.stem_frozen_epochs) == ("drawn", 0)
    assert config.budget.max_params == 1_100_000
    plain = look_at(photos, "patch").config
    assert (plain.space.name, plain.space.image_size) == ("autoformer", 48)


def test_minutes_become_views_frozen_epochs_and_epochs_of_all_weights(photos):
    looked_at = look_at(photos)
    speeds = Speeds(0.0, student_step_s=0.3, arch_s=0.01, head_s=20, test_s=10, view_step_s=0.5, frozen_step_s=0.02)
    for minutes in (4, 8, 20):
        config = with_lengths(looked_at.config, looked_at.facts, speeds, minutes)
        distill, per_epoch = config.distill, steps_per_epoch(48, config.distill.batch_size)
        assert 6 <= distill.num_views <= 16
        assert distill.stem_frozen_epochs >= distill.num_views
        assert distill.epochs > distill.stem_frozen_epochs
        assert (distill.epochs - distill.stem_frozen_epochs) * per_epoch <= MOST_STEPS + per_epoch
        seconds = phases(config, 48, speeds)
        assert sum(seconds.values()) <= 60 * minutes + 5
    slow = Speeds(0.0, student_step_s=1.0, arch_s=0.01, view_step_s=1.0, frozen_step_s=0.05, choices_s=130)
    assert with_lengths(looked_at.config, looked_at.facts, slow, 8).distill.epochs > 6  # comparing is no floor
    many = dataclasses.replace(looked_at.facts, num_train=5000)
    config = with_lengths(looked_at.config, many, speeds, 8)
    assert config.distill.num_views is None  # no time for views that come again, nor for a teacher
    assert not config.distill.loss.follow_teacher
    assert 1 <= config.distill.stem_frozen_epochs < config.distill.epochs
    config = with_lengths(looked_at.config, looked_at.facts, speeds, 20)
    assert inherited_seconds(config, 48, speeds) == pytest.approx(seconds["distill"] - 10, abs=0.1)


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
    config = look_at(photos, "patch").config
    space, rng = config.space, random.Random(1)
    flops = [space.cost(space.sample(rng), 2).flops for _ in range(200)]
    half = smaller(config, 2, 0.5).budget.max_flops
    assert half == pytest.approx(0.5 * max(flops), rel=0.1)
    least = smaller(config, 2, 0.01).budget.max_flops
    assert 0.1 < np.mean([each <= least for each in flops]) < 0.3  # so that there is a choice
    assert smaller(config, 2, 1.0) is None
    one = {"space": {"embed_dim": [96], "depth": [4], "num_heads": [3], "mlp_ratio": [2]}}
    assert smaller(look_at({**photos, **one}, "patch").config, 2, 0.1) is None


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
    tiny = {
        "space": {"embed_dim": [48], "depth": [2], "num_heads": [3]},
        "teacher": {"image_size": 16, "pretrained": False},
    }
    config = look_at({**photos, **tiny}).config
    data = load_data(config)
    speeds = measure_speeds(config, data)
    assert min(speeds.teacher_step_s, speeds.student_step_s, speeds.arch_s) > 0
    assert {path.name for path in (tmp_path / "cache" / "tvt_ray").iterdir()} <= {"decoded", "hashes"}


def test_class_folders_of_noise_have_facts_too(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 12)
    assert facts_of(load_dataset(DataSettings(name=f"imagefolder:{folder}"))).side == 10


ANTS_AND_BEES = DataFacts(num_train=195, num_val=49, num_classes=2, side=96, grey=False)
SPEEDS = Speeds(teacher_step_s=0.2, student_step_s=0.25, arch_s=0.025)


def config_of(facts=ANTS_AND_BEES, has_gpu=False, budget=None):
    budget = budget or Budget()
    return load_config(None, [recipe(facts, has_gpu, budget), {"budget": budget.model_dump()}])


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_every_image_size_makes_16_to_196_tokens(size):
    assert size % patch_size(size) == 0
    assert 16 <= (size // patch_size(size)) ** 2 <= 196


@pytest.mark.parametrize("max_params", [100_000, 1_000_000, 2_000_000, 6_000_000, 40_000_000])
def test_the_spaces_ceiling_lies_above_the_budget_and_its_floor_below(max_params):
    space = config_of(budget=Budget(max_params=max_params)).space
    assert space.smallest(2).params < max_params
    assert space.largest(2).params > max_params


def test_a_budget_that_is_none_leaves_a_space_that_small_data_can_fill():
    assert widths(Budget()) == (96, 144, 192)


@pytest.mark.parametrize("num_train", [10, 40, 195, 1000, 50_000])
def test_an_epoch_has_eight_batches_or_more_where_there_are_images_for_them(num_train):
    for has_gpu, largest in ((False, 32), (True, 128)):
        batch = batch_size(num_train, has_gpu)
        assert 8 <= batch <= largest
        if num_train >= 64:
            assert batch <= num_train / 8
            assert steps_per_epoch(num_train, batch) >= 8


@pytest.mark.parametrize(("num_images", "fraction"), [(100, 0.2), (244, 0.2), (800, 0.125), (5000, 0.1)])
def test_few_images_leave_more_of_them_to_validate_with(num_images, fraction):
    assert val_fraction(num_images) == pytest.approx(fraction)


def test_photographs_are_flipped_jittered_augmented_and_erased_by_teacher_and_students_alike():
    config = config_of()
    augment = config.distill.augment
    assert config.teacher_training.augment == augment.model_copy(update={"auto_augment": None})
    assert (augment.hflip, augment.random_erasing, augment.re_mode) == (0.5, 0.25, "pixel")
    assert augment.color_jitter
    assert augment.auto_augment.startswith("rand-")


def test_grey_images_have_no_colour_to_jitter():
    grey = DataFacts(num_train=195, num_val=49, num_classes=2, side=96, grey=True)
    assert config_of(grey).distill.augment.color_jitter is None


@pytest.mark.parametrize(("num_train", "epochs"), [(24, 300), (195, 100), (20_000, 40)])
def test_without_a_time_few_images_are_seen_more_often(num_train, epochs):
    facts = DataFacts(num_train, 49, 2, 96, grey=False)
    assert config_of(facts).distill.epochs == epochs


def test_what_time_is_given_is_filled_and_not_overdrawn():
    config = with_lengths(config_of(), ANTS_AND_BEES, SPEEDS, minutes=8)
    takes = phases(config, ANTS_AND_BEES.num_train, SPEEDS)
    assert 0.85 * 480 < sum(takes.values()) <= 480 * 1.03
    assert takes["distill"] > takes["teacher"] > takes["search"] > 0


def test_stages_from_chance_leave_more_of_the_time_to_the_student(photos, monkeypatch):
    monkeypatch.setattr("tvt_ray.planning.recipe.backbone_of", lambda teacher, chosen: None)
    looked_at = look_at(photos)
    speeds = dataclasses.replace(SPEEDS, choices_s=60)
    config = with_lengths(looked_at.config, looked_at.facts, speeds, minutes=8)
    assert config.distill.learn_from == "train and val"
    learned = num_learned(config, looked_at.facts)
    assert learned == looked_at.facts.num_train + looked_at.facts.num_val
    takes = phases(config, looked_at.facts.num_train, speeds, num_learned=learned)
    assert 0.85 * 480 < sum(takes.values()) <= 480 * 1.03
    assert takes["choices"] == 60
    assert 2 * takes["teacher"] < takes["distill"]


def test_every_phase_is_counted_by_its_own_batches():
    """195 images: 13 batches of 16 for the teacher, 7 of 32 for students; Ray starts once for each stage."""
    layers = {
        "teacher_training": {"epochs": 10, "min_steps": 1, "batch_size": 16},
        "distill": {"epochs": 30, "batch_size": 32},
        "search": {"num_samples": 300},
        "score": {"calibration_samples": 100},
        "refine": {"rounds": 1, "repeats": 0},
    }
    config = load_config(None, [layers])
    takes = phases(config, 195, SPEEDS, num_refined=9, num_distilled=2)
    assert takes["teacher"] == pytest.approx(10 * 13 * 0.2)
    assert takes["search"] == pytest.approx(400 * 0.025)
    assert takes["refine"] == pytest.approx((9 * 10 + 3 * 10) * 7 * 0.25)  # 9 students to epoch 10, 3 of them to 20
    assert takes["distill"] == pytest.approx(2 * 30 * 7 * 0.25)
    assert takes["start"] == 3 * 20
    alone = phases(config, 195, SPEEDS, trains_teacher=False, num_distilled=0)
    assert alone == {"search": 10.0, "start": 20.0}


def test_refining_takes_what_all_its_rounds_take():
    """Two rounds of 8 with two repeats: 16 and 2 to the first rung; at the second, 3 of 8 and then 6 of 16 at most."""
    config = load_config(None, [{"distill": {"epochs": 30}, "refine": {"rounds": 2, "repeats": 2}}])
    assert refined_epochs(config, 16) == (16 + 2) * 10 + (3 + 6) * 10
    assert refined_epochs(config, 0) == 0


def test_the_minutes_of_a_teacher_that_is_trained_already_are_the_students():
    trained = dataclasses.replace(SPEEDS, teacher_step_s=0)
    config = with_lengths(config_of(), ANTS_AND_BEES, trained, minutes=8)
    takes = phases(config, ANTS_AND_BEES.num_train, trained, trains_teacher=False)
    assert takes.keys() == {"search", "distill", "start"}
    assert 0.85 * 480 < sum(takes.values()) <= 480 * 1.03
    assert config.teacher_training == config_of().teacher_training
    with pytest.raises(UsageError, match=r"too little: 300 steps of a student take 1\.9 minutes"):
        with_lengths(config_of(), ANTS_AND_BEES, trained, minutes=1)


@pytest.mark.parametrize("minutes", [4, 8, 30, 600])
def test_teacher_and_student_make_steps_enough_and_not_without_end(minutes):
    config = with_lengths(config_of(), ANTS_AND_BEES, SPEEDS, minutes)
    per_epoch = steps_per_epoch(ANTS_AND_BEES.num_train, batch_size(ANTS_AND_BEES.num_train, has_gpu=False))
    teacher_steps = config.teacher_training.num_epochs(ANTS_AND_BEES.num_train) * per_epoch
    student_steps = config.distill.epochs * per_epoch
    assert TEACHER_FLOOR <= teacher_steps <= 21 * TEACHER_FLOOR
    assert STUDENT_FLOOR - per_epoch <= student_steps <= 21 * STUDENT_FLOOR


@pytest.mark.parametrize(("num_train", "epochs"), [(10, 10), (195, 10), (1800, 2), (50_000, 1)])
def test_a_student_warms_up_in_so_many_steps_whatever_an_epoch_has(num_train, epochs):
    """An epoch of many images is long, and a short training has few."""
    config = config_of(dataclasses.replace(ANTS_AND_BEES, num_train=num_train))
    assert config.distill.warmup_epochs == epochs


def test_no_more_is_trained_than_a_small_dataset_teaches():
    """Twenty times the floor, or the 300 epochs of the published recipe where those are more steps."""
    epochs = {}
    for num_train in (195, 50_000):
        facts = dataclasses.replace(ANTS_AND_BEES, num_train=num_train)
        config = with_lengths(config_of(facts), facts, SPEEDS, minutes=1e6)
        epochs[num_train] = config.distill.epochs
        assert config.teacher_training.epochs == config.distill.epochs
    assert epochs == {195: 20 * STUDENT_FLOOR // 9, 50_000: 300}


def test_a_student_gets_enough_training_or_a_part_of_it():
    """400 steps, and 15 epochs; what is left for it of eight minutes is 480 s less start, teacher and search."""
    config = config_of()
    assert affordable(config, ANTS_AND_BEES, SPEEDS, minutes=8) == 1
    slow = dataclasses.replace(SPEEDS, student_step_s=2.0)
    assert affordable(config, ANTS_AND_BEES, slow, minutes=8) == pytest.approx(0.5 * 440 / (400 * 2.0), rel=0.01)
    many = dataclasses.replace(ANTS_AND_BEES, num_train=3200)  # of 100 steps an epoch
    assert affordable(config_of(many), many, slow, 8) == pytest.approx(0.5 * 440 / (1500 * 2.0), rel=0.01)
    assert affordable(config, ANTS_AND_BEES, slow, minutes=0.1) == 0


def test_longer_is_never_less():
    lengths = [
        with_lengths(config_of(), ANTS_AND_BEES, SPEEDS, minutes).distill.epochs for minutes in (4, 6, 8, 16, 30)
    ]
    assert all(a <= b for a, b in itertools.pairwise(lengths))


def test_too_little_time_is_refused_with_what_would_do():
    with pytest.raises(UsageError, match=r"--minutes 1 is too little: 300 steps of the teacher .* take 2\.9 minutes"):
        with_lengths(config_of(), ANTS_AND_BEES, SPEEDS, minutes=1)


def test_the_same_facts_give_the_same_config_and_it_is_whole():
    assert config_of() == config_of()
    assert load_config(None, [config_of().model_dump(mode="json")]) == config_of()
