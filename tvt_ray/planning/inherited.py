"""The recipes of students that begin with stages of a ConvNet: a frozen teacher's, or drawn ones.

What a stage gives of an image is computed once while the stages are frozen, so that most epochs take next to no time.
The rest of the time goes into epochs in which all of the student learns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvt_ray.planning.facts import DataFacts, Speeds, steps_per_epoch
from tvt_ray.runs.config import RunConfig
from tvt_ray.vits.budget import Budget
from tvt_ray.vits.stems import MOST_STAGES
from tvt_ray.vits.trunks import num_stages_of, trunk_facts

BACKBONE = "tf_efficientnet_lite0"  # whose stages students begin with where none are inherited
# Pixels that students see, of images of as many or more; small ones are enlarged, since the stages know large ones.
SIZES, SIZES_WITH_GPU = (128, 160), (128, 160, 224)
STRIDES = (8, 16)  # of the stages that a stem may end at
PATCH = 16  # pixels from one token to the next
WIDTHS, DEPTHS, RATIOS, HEAD_DIM = (96, 144, 192, 288, 384), (1, 2, 3, 4), (2, 3), 48
SHARE = 0.75  # of a budget of parameters, that stages take at most
MAX_PARAMS = 1_100_000  # where nobody sets a budget: a third of the teacher's
STEM_LR = 0.3  # times the learning rate: 0.1 was 0.8 and 2.0 points behind on two sets of images (docs/results.md)
LEAST_VIEWS, MOST_VIEWS = 6, 16  # augmentations of an image that come again,
VIEWS_SHARE = 0.2  # and their part of the time
FROZEN_STEPS, MOST_FROZEN_SHARE = 450, 0.35  # with frozen stages, and their part of the time
# Parts of the time: for choosing how to learn and which ViT, and of that for which ViT.
CHOICES_SHARE, BODIES_SHARE = 0.27, 0.09
LEAST_STEPS, MOST_STEPS = 60, 900  # in which all of the student learns


def inherited_recipe(
    facts: DataFacts, has_gpu: bool, budget: Budget, backbone: str, batch: int, all_cuts: bool
) -> dict[str, Any]:
    """Settings as a layer over the defaults. `backbone`: the teacher, as timm has it. `batch`: images of one.

    `all_cuts`: students may begin with any of the stages, for who compares those; else with the last one that the
    budget holds.
    """
    stems = _stems(budget, backbone)
    return {
        **_on_stages(facts, has_gpu, budget, backbone, stems if all_cuts else stems[-1:]),
        "teacher": {"name": f"timm:{backbone}", "pretrained": True},
        "distill": {
            **optimisation(facts, batch, lr=2e-3),
            "epochs": 60,
            "channels_last": True,
            "stem": "inherited",
            "stem_lr": STEM_LR,
            "stem_frozen_epochs": 30,
            "num_views": 8,
            "loss": {
                "weights": {"cross_entropy": 1.0, "guidance": 0.0, "logits": 1.0, "features": 4.0},
                "temperature": 2.0,
            },
        },
    }


def drawn_recipe(facts: DataFacts, has_gpu: bool, budget: Budget, batch: int, epochs: int) -> dict[str, Any]:
    """The same students where no weights are to be had: stages from chance, which learn as all else does.

    Teacher and `epochs` are those of who begins from chance (planning/recipe.py).
    """
    stems = _stems(budget, BACKBONE)
    return {
        **_on_stages(facts, has_gpu, budget, BACKBONE, stems[-1:]),
        "distill": {
            **optimisation(facts, batch, lr=1e-3),
            "epochs": epochs,
            "channels_last": True,
            "stem": "drawn",
            "loss": {"weights": {"cross_entropy": 1.0, "guidance": 0.0, "logits": 1.0}, "temperature": 2.0},
        },
    }


def _stems(budget: Budget, backbone: str) -> list[str]:
    return stems_of(backbone, budget.max_params or (math.inf if _has_limit(budget) else MAX_PARAMS))


def _has_limit(budget: Budget) -> bool:
    return any(getattr(budget, f"max_{name}") is not None for name in ("params", "flops", "latency_ms"))


def _on_stages(facts: DataFacts, has_gpu: bool, budget: Budget, backbone: str, stems: list[str]) -> dict[str, Any]:
    """Space, budget and search of students on these stages."""
    least = trunk_facts(backbone, int(stems[0].removeprefix("stage"))).params
    return {
        "space": {
            "name": "vit",
            "image_size": image_size_on_stages(facts.side, has_gpu),
            "embed_dim": list(WIDTHS),
            "depth": list(DEPTHS),
            "head_dim": [HEAD_DIM],
            "mlp_ratio": list(RATIOS),
            "patch_size": [PATCH],
            "stem": stems,
            "backbone": backbone,
            "pool": ["mean"],
        },
        "budget": {} if _has_limit(budget) else {"max_params": max(MAX_PARAMS, round(least / SHARE))},
        "probe": {"num_images": min(32, facts.num_train)},
        "score": {"readings": "score"},
        "search": {"searcher": "exhaustive"},
    }


def optimisation(facts: DataFacts, batch: int, lr: float) -> dict[str, Any]:
    """Settings of `distill` that all recipes share. `batch`: images of one."""
    return {
        "batch_size": batch,
        "lr": lr,
        "min_lr": lr / 100,
        "warmup_epochs": max(1, round(50 / steps_per_epoch(facts.num_train, batch))),
        "warmup_lr": 1e-6,
        "clip_grad": 1.0,
        "ema_decay": 0.99,
        "smoothing": 0.1,
        "augment": augmentation(facts),
        "amp": "auto",
    }


def image_size_on_stages(side: int, has_gpu: bool) -> int:
    """Pixels that students on stages see, of images of this shorter side."""
    sizes = SIZES_WITH_GPU if has_gpu else SIZES
    return max((size for size in sizes if size <= side), default=sizes[0])


def stems_of(backbone: str, max_params: float) -> list[str]:
    """The stages that students may begin with: those whose map is neither finer nor coarser than tokens can be.

    Of those, all that leave a quarter of `max_params` to the ViT, and one at least.
    """
    counts = range(1, min(num_stages_of(backbone), MOST_STAGES) + 1)
    fitting = [count for count in counts if trunk_facts(backbone, count).stride in STRIDES]
    small = [count for count in fitting if trunk_facts(backbone, count).params < SHARE * max_params]
    return [f"stage{count}" for count in small or fitting[:1]]


def augmentation(facts: DataFacts) -> Mapping[str, Any]:
    """That of the published recipe, with larger crops and colour jitter; of students from chance too."""
    return {
        "scale": [0.35, 1.0],
        "hflip": 0.5,
        "color_jitter": None if facts.grey else 0.3,
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": 0.25,
        "re_mode": "pixel",
    }


def with_inherited_lengths(config: RunConfig, facts: DataFacts, speeds: Speeds, seconds: float) -> RunConfig:
    """The config with as many views and epochs as a student's `seconds` hold.

    Of few images many views are seen once, with frozen stages; then come frozen epochs that cost little, then those of
    all weights, which ask the teacher no more. Of many images there is no time for views that come again: each epoch
    has its own, and students learn from labels alone, since the teacher takes as long as they do.
    """
    per_epoch = steps_per_epoch(num_learned(config, facts), config.distill.batch_size)
    views = min(int(VIEWS_SHARE * seconds / (per_epoch * speeds.view_step_s)), MOST_VIEWS)
    if views < LEAST_VIEWS:
        return _with_fresh_views(config, facts, speeds, seconds)
    left = max(seconds - views * per_epoch * speeds.view_step_s, 0.0)
    frozen = min(FROZEN_STEPS, int(MOST_FROZEN_SHARE * left / max(speeds.frozen_step_s, 1e-4)))
    frozen_epochs = max(math.ceil(frozen / per_epoch), views)
    config = config.with_(distill={"num_views": views, "stem_frozen_epochs": frozen_epochs})
    return with_epochs_on_stages(config, facts, speeds, seconds)


def _with_fresh_views(config: RunConfig, facts: DataFacts, speeds: Speeds, seconds: float) -> RunConfig:
    per_epoch = steps_per_epoch(num_learned(config, facts), config.distill.batch_size)
    frozen_epochs = max(1, int(VIEWS_SHARE * seconds / (per_epoch * speeds.view_step_s)))
    weights = {**dict.fromkeys(config.distill.loss.weights, 0.0), **config.distill.loss.alone().weights}
    lengths = {"num_views": None, "stem_frozen_epochs": frozen_epochs, "loss": {"weights": weights}}
    return with_epochs_on_stages(config.with_(distill=lengths), facts, speeds, seconds)


def with_epochs_on_stages(config: RunConfig, facts: DataFacts, speeds: Speeds, seconds: float) -> RunConfig:
    """The config with as many epochs of all weights as a student's `seconds` hold beside those with frozen stages."""
    num_images, frozen = num_learned(config, facts), config.distill.stem_frozen_epochs
    left = seconds - inherited_seconds(config.with_(distill={"epochs": frozen}), num_images, speeds)
    per_epoch = steps_per_epoch(num_images, config.distill.batch_size)
    steps = min(max(int(left / speeds.student_step_s), LEAST_STEPS), MOST_STEPS)
    return config.with_(distill={"epochs": frozen + max(1, steps // per_epoch)})


def num_learned(config: RunConfig, facts: DataFacts) -> int:
    """Images that a student learns from."""
    return facts.num_train + (facts.num_val if config.distill.learn_from == "train and val" else 0)


def inherited_seconds(config: RunConfig, num_train: int, speeds: Speeds) -> float:
    """What a student's training takes at these speeds."""
    distill = config.distill
    per_epoch = steps_per_epoch(num_train, distill.batch_size)
    views = min(distill.num_views or distill.epochs, distill.stem_frozen_epochs)
    frozen, rest = distill.stem_frozen_epochs - views, max(distill.epochs - distill.stem_frozen_epochs, 0)
    each = views * speeds.view_step_s + frozen * speeds.frozen_step_s + rest * speeds.student_step_s
    return per_epoch * each


def inherits(config: RunConfig) -> bool:
    """Whether a config's students begin with stages of their teacher's, frozen at first."""
    return config.distill.stem_frozen_epochs > 0 and config.distill.stem == "inherited"
