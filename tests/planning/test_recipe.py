"""A config from what a dataset is like."""

import dataclasses
import itertools

import pytest

from tvt_ray.data.image_size import IMAGE_SIZES
from tvt_ray.errors import UsageError
from tvt_ray.planning.recipe import (
    STUDENT_FLOOR,
    TEACHER_FLOOR,
    DataFacts,
    Speeds,
    affordable,
    batch_size,
    patch_size,
    phases,
    recipe,
    refined_epochs,
    steps_per_epoch,
    val_fraction,
    widths,
    with_lengths,
)
from tvt_ray.runs.config import load_config
from tvt_ray.vits.budget import Budget

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
