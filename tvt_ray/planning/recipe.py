"""A whole config from what a dataset is like: what to train at which size, and for how long."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from tvt_ray.data.datasets import load_dataset, recarved
from tvt_ray.data.splits import CARVED, Dataset
from tvt_ray.data.survey import header_facts, image_size, median_side
from tvt_ray.errors import UsageError
from tvt_ray.planning.facts import DataFacts, Speeds, steps_per_epoch
from tvt_ray.planning.inherited import (
    augmentation,
    drawn_recipe,
    inherited_recipe,
    inherited_seconds,
    inherits,
    num_learned,
    optimisation,
    with_epochs_on_stages,
    with_inherited_lengths,
)
from tvt_ray.progress import say
from tvt_ray.refining.halving import Halving, round_sizes
from tvt_ray.runs.config import RunConfig
from tvt_ray.strict import merged
from tvt_ray.teachers import AUTO, check_settings, is_vit
from tvt_ray.teachers.provide import check_weights
from tvt_ray.teachers.published import choose_published
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.timm_cnn import PREFIX, check_name
from tvt_ray.training.learner import FEW_IMAGES
from tvt_ray.vits.budget import Budget
from tvt_ray.vits.stems import STAGES
from tvt_ray.vits.trunks import num_stages_of
from tvt_ray.vits.vit import ViTSpace

StemChoice: TypeAlias = Literal["auto", "patch"]
WIDTH_STEP, HEADS, DEPTHS, RATIOS = 48, (3, 4), (4, 5, 6, 7, 8), (2, 3, 4)
NUM_WIDTHS, WIDEST_WITHOUT_BUDGET, WIDEST = 3, 192, 768
ROOM = 1.3  # times the budget that the space's ceiling is at least
SMALLEST_BATCH, LARGEST_BATCH, LARGEST_BATCH_ON_CPU = 8, 128, 32
BATCHES_PER_EPOCH = 8  # at least
# Steps of the optimiser: with fewer, a teacher knows little more than the largest class, and a student less than it.
TEACHER_FLOOR, STUDENT_FLOOR = 300, 300
TEACHER_STEPS, STUDENT_STEPS, EPOCHS = 600, 900, 40  # where no time is given: so many steps, and epochs, at least
# Times the floor, or epochs where those are more steps: beyond, a small dataset is only learned by heart.
MOST_FLOORS, MOST_EPOCHS = 20, 300
ENOUGH_STEPS, ENOUGH_EPOCHS = 400, 15  # both; a student that gets less is too large for the time
WARMUP_STEPS, MOST_WARMUP_EPOCHS = 90, 10
NUM_SAMPLES = 2000
OWN = ("imagefolder:", "parquet:")
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "F"})
NUM_STARTS = 2  # of Ray in a fit: search and distil
START_S = 20.0  # Ray starting on this machine, its first worker and the driver importing torch: 16 s on two cores
TEACHER_SHARE, SEARCH_SHARE = 0.4, 0.1  # of the time that is left when start-up is paid
STAGES_TEACHER_SHARE = 0.25  # the teacher's, where students begin with stages from chance, which soon pass it


def own_config(asked: Mapping[str, Any]) -> RunConfig:
    """The config for whoever names no file: of one's own images the recipe's, else the defaults, `asked` on top."""
    config = RunConfig().with_(asked)
    return look_at(asked).config if config.data.name.startswith(OWN) else config


@dataclass(frozen=True)
class LookedAt:
    """A dataset that was read, what it is like, and the config that the recipe has for it."""

    config: RunConfig
    facts: DataFacts
    data: Dataset


def look_at(asked: Mapping[str, Any], stem: StemChoice = "auto", all_cuts: bool = False) -> LookedAt:
    """The recipe for the dataset that `asked` names, with what else it sets on top; of the digits, the defaults.

    `stem`: what students begin with; auto: with stages of the teacher, where it has some that others trained, or such
    stages from chance.
    `all_cuts`: with any of those, for who compares them. Raises UsageError for what is wrong with the dataset, the
    teacher or the settings.
    """
    config = RunConfig().with_(asked)
    asked_teacher = asked.get("teacher", {})
    chose_teacher = asked_teacher.get("name", AUTO) != AUTO or config.teacher.weights is not None
    if chose_teacher:
        check_weights(config.teacher)
    data = load_dataset(config.data)
    if config.data.name == RunConfig().data.name:  # what the defaults were made for: a digit is no photograph
        return LookedAt(config, facts_of(data), data)
    fraction = {"data": {"val_fraction": val_fraction(len(data.train) + len(data.val))}}
    data = recarved(data, RunConfig().with_(fraction, asked).data)
    facts = facts_of(data)
    has_gpu = torch.cuda.is_available()
    backbone = backbone_of(config.teacher, chose_teacher)
    chosen = dict(recipe(facts, has_gpu, config.budget))
    if backbone is not None:
        chosen["teacher"] = {"name": f"{PREFIX}{backbone}", "pretrained": True}
        if stem != "patch" and takes_stages(asked.get("space", {})):
            batch = batch_size(facts.num_train, has_gpu)
            chosen = inherited_recipe(facts, has_gpu, config.budget, backbone, batch, all_cuts)
    elif not chose_teacher and stem != "patch" and takes_stages(asked.get("space", {})):
        batch, epochs = batch_size(facts.num_train, has_gpu), chosen["distill"]["epochs"]
        chosen |= drawn_recipe(facts, has_gpu, config.budget, batch, epochs)
    on_stages = chosen["space"]["name"] == "vit"
    if on_stages and data.origins.get("val", "").startswith(CARVED) and facts.num_val < FEW_IMAGES:
        chosen["distill"]["learn_from"] = "train and val"  # when all is chosen, few images are not left out
    if chose_teacher:
        del chosen["teacher"]
        if backbone is None:
            chosen["distill"] = {**chosen["distill"], "init": kin_of(config.teacher)}
    elif config.teacher.name == AUTO:
        asked = merged(asked, {"teacher": {"name": chosen["teacher"]["name"]}})
    return LookedAt(RunConfig().with_(fraction, chosen, asked), facts, data)


def takes_stages(space: Mapping[str, Any]) -> bool:
    """Whether settings of a space leave it a ViT that can stand on stages: they name nothing that this has not."""
    has_stages = all(STAGES.fullmatch(str(stem)) for stem in space.get("stem", ()))
    return space.get("name", "vit") == "vit" and space.keys() <= ViTSpace.model_fields.keys() and has_stages


def backbone_of(teacher: TeacherSettings, chosen: bool) -> str | None:
    """The ConvNet of timm's whose weights students may begin with; None where there is none, and why is logged.

    `chosen`: somebody named the teacher, who then lends its stages if it has weights; else one that is to be had does.
    """
    if chosen:
        is_timm = teacher.name.startswith(PREFIX) and (teacher.weights is not None or teacher.pretrained is not False)
        if is_timm:
            check_name(teacher.name)
        return _with_stages(teacher.name.removeprefix(PREFIX)) if is_timm else None
    if teacher.pretrained is False:
        return None
    try:
        return choose_published()
    except UsageError as error:
        say(f"teacher: trained from drawn weights: {error}")
        return None


def kin_of(teacher: TeacherSettings) -> str | None:
    """What students of a teacher that is itself a ViT take their first weights of; None: it is none, or has none."""
    if not teacher.name.startswith(PREFIX) or teacher.pretrained is False or not is_vit(check_settings(teacher)):
        return None
    return teacher.name if teacher.pretrained is True else str(teacher.pretrained)


def _with_stages(network: str) -> str | None:
    try:
        return network if num_stages_of(network) else None
    except UsageError as error:
        say(f"students begin with drawn weights: {error}")
        return None


def facts_of(data: Dataset) -> DataFacts:
    """Of the training images, from the headers of some."""
    looked = header_facts(data)
    return DataFacts(
        num_train=len(data.train),
        num_val=len(data.val),
        num_classes=data.num_classes,
        side=median_side(looked),
        grey=all(each.mode in GREY_MODES for each in looked),
    )


def patch_size(size: int) -> int:
    """4, 8 or 16 pixels, which make 36 to 196 patches of each of IMAGE_SIZES."""
    return 4 if size <= 32 else 8 if size <= 96 else 16


def widths(budget: Budget) -> tuple[int, ...]:
    """Three, the widest such that the space's ceiling lies above the parameters that the budget allows.

    A block of width w and ratio 4 has 12 w^2 parameters.
    """
    widest = WIDEST_WITHOUT_BUDGET
    if budget.max_params is not None:
        needed = math.sqrt(ROOM * budget.max_params / (12 * max(DEPTHS)))
        widest = min(max(math.ceil(needed / WIDTH_STEP) * WIDTH_STEP, WIDTH_STEP), WIDEST)
    return tuple(width for i in range(NUM_WIDTHS) if (width := widest - i * WIDTH_STEP) > 0)[::-1]


def batch_size(num_train: int, has_gpu: bool) -> int:
    """An eighth of the images, 8 to 128; at most 32 on a CPU, where as many images a second make more steps."""
    largest = LARGEST_BATCH if has_gpu else LARGEST_BATCH_ON_CPU
    return min(max(num_train // BATCHES_PER_EPOCH, SMALLEST_BATCH), largest)


def val_fraction(num_images: int) -> float:
    """Of the training images: a tenth, and more where that is under 100, up to a fifth."""
    return min(max(0.1, 100 / num_images), 0.2)


def recipe(facts: DataFacts, has_gpu: bool, budget: Budget) -> Mapping[str, Any]:
    """Settings for photographs and the like, as a layer over the defaults: sizes, space, augmentation, lengths."""
    size, batch = image_size(facts.side, has_gpu), batch_size(facts.num_train, has_gpu)
    augment = augmentation(facts)
    return {
        "space": {
            "name": "autoformer",
            "image_size": size,
            "patch_size": patch_size(size),
            "embed_dim": list(widths(budget)),
            "depth": list(DEPTHS),
            "num_heads": list(HEADS),
            "mlp_ratio": list(RATIOS),
        },
        "teacher": {"name": "timm:resnet10t", "pretrained": False, "image_size": size},
        "teacher_training": {
            "epochs": _epochs(TEACHER_STEPS, facts.num_train, batch),
            "min_steps": TEACHER_FLOOR,
            "batch_size": batch,
            "lr": 0.02,
            "smoothing": 0.1,
            "augment": {**augment, "auto_augment": None},
        },
        "probe": {"num_images": min(32, facts.num_train)},
        "search": {"num_samples": NUM_SAMPLES},
        "distill": _distillation(facts, batch),
    }


def _distillation(facts: DataFacts, batch: int) -> Mapping[str, Any]:
    return {
        **optimisation(facts, batch, lr=1e-3),
        "epochs": _epochs(STUDENT_STEPS, facts.num_train, batch),
        "warmup_epochs": _warmup_epochs(facts.num_train, batch),
        "loss": {"weights": {"cross_entropy": 1.0, "guidance": 2.5}, "guidance_limit": 1.0},
    }


def _epochs(steps: int, num_train: int, batch: int) -> int:
    return max(math.ceil(steps / steps_per_epoch(num_train, batch)), EPOCHS)


def _warmup_epochs(num_train: int, batch: int) -> int:
    return min(max(round(WARMUP_STEPS / steps_per_epoch(num_train, batch)), 1), MOST_WARMUP_EPOCHS)


def least_minutes(speeds: Speeds) -> float:
    """That the floors of teacher and student take, and comparing ways to learn where that takes a given time."""
    floors = TEACHER_FLOOR * speeds.teacher_step_s + STUDENT_FLOOR * speeds.student_step_s + speeds.head_s
    return (floors + speeds.choices_s + NUM_STARTS * START_S) / 60


def with_lengths(config: RunConfig, facts: DataFacts, speeds: Speeds, minutes: float) -> RunConfig:
    """The config with as many epochs and architectures as `minutes` hold.

    Raises UsageError where they do not hold the floors of teacher and student.
    """
    shared = inherits(config)  # comparing takes a part of whatever time there is
    needed = least_minutes(dataclasses.replace(speeds, choices_s=0.0) if shared else speeds)
    if minutes < needed:
        teacher = f"{TEACHER_FLOOR} steps of the teacher and " if speeds.teacher_step_s else ""
        raise UsageError(
            f"--minutes {minutes:g} is too little: {teacher}{STUDENT_FLOOR} steps of a student take "
            f"{needed:.1f} minutes here; give more, or a smaller space.image_size"
        )
    teacher_epochs, samples, seconds = _shares(config, facts, speeds, minutes)
    config = config.with_(search={"num_samples": samples})
    if inherits(config):
        return with_inherited_lengths(config, facts, speeds, seconds)
    teaching = {
        "epochs": teacher_epochs or config.teacher_training.epochs,
        "min_steps": config.teacher_training.min_steps,
    }
    return with_epochs(config.with_(teacher_training=teaching), facts, speeds, seconds)


def with_epochs(config: RunConfig, facts: DataFacts, speeds: Speeds, seconds: float) -> RunConfig:
    """The config with as many epochs of a student as these seconds hold, and the floor at least."""
    if inherits(config):
        return with_epochs_on_stages(config, facts, speeds, seconds)
    per_epoch = steps_per_epoch(num_learned(config, facts), config.distill.batch_size)
    steps = _steps(seconds, speeds.student_step_s, STUDENT_FLOOR, per_epoch)
    return config.with_(distill={"epochs": max(1, steps // per_epoch)})


def _shares(config: RunConfig, facts: DataFacts, speeds: Speeds, minutes: float) -> tuple[int, int, float]:
    """Of the minutes: the teacher's epochs (0: it is trained already), the architectures that are read, and the seconds
    left for the student.
    """
    left = 60 * minutes - NUM_STARTS * START_S - speeds.head_s - speeds.choices_s - speeds.test_s
    per_epoch, teacher = steps_per_epoch(facts.num_train, config.teacher_training.batch_size), 0
    if speeds.teacher_step_s:
        share = STAGES_TEACHER_SHARE if config.distill.stem == "drawn" else TEACHER_SHARE
        teacher = max(_steps(share * left, speeds.teacher_step_s, TEACHER_FLOOR, per_epoch), per_epoch)
    most = min(config.search.num_samples, config.space.size())
    samples = max(1, min(most, int(SEARCH_SHARE * left / speeds.arch_s)))
    spent = teacher * speeds.teacher_step_s + samples * speeds.arch_s
    return teacher // per_epoch, samples, left - spent


def affordable(config: RunConfig, facts: DataFacts, speeds: Speeds, minutes: float) -> float:
    """The part of enough training that the largest student gets in its share of `minutes`; 1 where that is enough."""
    *_, seconds = _shares(config, facts, speeds, minutes)
    enough = max(ENOUGH_STEPS, ENOUGH_EPOCHS * steps_per_epoch(num_learned(config, facts), config.distill.batch_size))
    return min(max(seconds, 0.0) / (enough * speeds.student_step_s), 1.0)


def phases(
    config: RunConfig,
    num_train: int,
    speeds: Speeds,
    *,
    trains_teacher: bool = True,
    num_refined: int = 0,
    num_distilled: int = 1,
    num_learned: int | None = None,
) -> dict[str, float]:
    """Seconds that each phase of a config takes at these speeds, in order, those that take none left out.

    Students are counted one by one: side by side they take less. `num_learned`: images that students learn from in the
    end; None: as many as the teacher.
    """
    teaching, distill, learned = config.teacher_training, config.distill, num_learned or num_train
    teacher_steps = teaching.num_epochs(num_train) * steps_per_epoch(num_train, teaching.batch_size)
    epoch_s = steps_per_epoch(learned, distill.batch_size) * speeds.student_step_s
    student_s = inherited_seconds(config, learned, speeds) if inherits(config) else distill.epochs * epoch_s
    starts = 1 + bool(num_refined) + bool(num_distilled)
    seconds = {
        "teacher": teacher_steps * speeds.teacher_step_s + speeds.head_s if trains_teacher else 0.0,
        "search": (config.search.num_samples + config.score.calibration_samples) * speeds.arch_s,
        "choices": speeds.choices_s,
        "refine": refined_epochs(config, num_refined) * epoch_s,
        "distill": num_distilled * student_s + (speeds.test_s if num_distilled else 0.0),
        "start": starts * START_S,
    }
    return {name: round(value, 1) for name, value in seconds.items() if value}


def refined_epochs(config: RunConfig, num_students: int) -> int:
    """Epochs that refining so many students takes at most, over all of them."""
    if not num_students:
        return 0
    settings = config.refine.with_(num_students=num_students)
    halving = Halving.of(settings, config.distill.epochs, config.distill.seed)
    return halving.most_epochs(round_sizes(settings, halving))


def _steps(seconds: float, step_s: float, floor: int, per_epoch: int) -> int:
    return int(min(max(seconds / step_s, floor), max(MOST_FLOORS * floor, MOST_EPOCHS * per_epoch)))
