"""Any timm CNN as a teacher, and its ViTs where others trained them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tvt_ray.errors import UsageError
from tvt_ray.teachers.checkpoints import told
from tvt_ray.teachers.published import HUBS, check_hub, create_published, find_published
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import NUM_STAGES, Backbone, State, Teacher
from tvt_ray.teachers.weights import COUNTER, load_weights, read_state
from tvt_ray.vision_compat import ensure_torchvision

PREFIX = "timm:"


class TimmCnn(Backbone):
    """A timm model behind the same interface, giving its last three stage maps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def network(self) -> nn.Module:
        """The timm model, whose state dict files hold."""
        return self.model  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 3, H, W) -> logits (B, classes) and three maps (B, C, H', W')."""
        logits, maps, _ = self.outputs(images, with_features=False)
        return logits, maps

    def outputs(self, images: Tensor, with_features: bool) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """The same, with what the classifier reads, (B, C), where it is asked for: one pass gives all."""
        final, maps = self.model.forward_intermediates(images, indices=NUM_STAGES, output_fmt="NCHW")
        features = self.model.forward_head(final, pre_logits=True) if with_features else None
        return self.model.forward_head(final), tuple(maps), features

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True)  # type: ignore[no-any-return]


def build_timm(settings: TeacherSettings, num_classes: int, state: State | None) -> Teacher:
    """Without a `state` to come, from `settings.pretrained`, with a new classifier where the classes differ.

    Raises UsageError for a model or tag that timm does not have (names those it has), one that gives no three stage
    maps, and where pretrained weights cannot be had or do not fit.
    """
    start = state is None
    model = _create(settings, num_classes, download=start and settings.pretrained is True)
    check_stages(settings.name, model)
    teacher, config = as_teacher(settings.name, model, num_classes, settings.image_size), model.pretrained_cfg
    if start and isinstance(settings.pretrained, Path):
        new = _classifiers(config)
        own = {key for key in model.state_dict() if not key.startswith(new) and not key.endswith(COUNTER)}
        load_weights(teacher, read_state(settings.pretrained, wanted=own.issubset), settings.pretrained, new)
    if settings.image_size is not None and config.get("fixed_input_size") and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=settings.image_size)  # a ViT, whose positions are of a map of one size
    return teacher


def as_teacher(name: str, model: Any, num_classes: int, image_size: int | None = None) -> Teacher:
    """A model of timm's with its own normalisation and, unless another is given, its own image size in pixels."""
    config = model.pretrained_cfg
    size = image_size or config["input_size"][-1]
    return Teacher(name, TimmCnn(model), num_classes, size, config["mean"], config["std"])


def source_of(settings: TeacherSettings) -> str | None:
    """From where a teacher's published weights are, and their licence; None where it takes none that timm knows."""
    name = settings.name.removeprefix(PREFIX)
    if settings.pretrained is not True or name == settings.name or name.startswith(HUBS):
        return None
    return str(find_published(name))


def check_stages(name: str, model: Any) -> None:
    """Raises UsageError for a timm model that has no stage maps to give, or too few."""
    if not hasattr(model, "forward_intermediates"):
        raise UsageError(f"{name} does not offer its stage maps (forward_intermediates): choose another CNN")
    num_stages = len(getattr(model, "feature_info", None) or range(NUM_STAGES))
    if num_stages < NUM_STAGES:
        raise UsageError(f"{name} has {num_stages} stages; a teacher has at least {NUM_STAGES}: choose another CNN")


def _classifiers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """How the names of a model's classifiers begin; some have two."""
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def check_name(name: str) -> None:
    """Raises UsageError for a model that timm does not have, naming near ones, and for a tag, naming those there are.

    What the Hugging Face Hub has (timm:hf-hub:OWNER/NAME) shows when it is asked.
    """
    ensure_torchvision()
    import timm

    name = name.removeprefix(PREFIX)
    if name.startswith(HUBS):
        return
    model, dot, tag = name.partition(".")
    if not timm.is_model(model):
        close = difflib.get_close_matches(model, timm.list_models(), 3)
        raise UsageError(
            f"timm has no model {model!r}; near: {', '.join(close) or 'none'}; timm.list_models() lists all"
        )
    tags = [known.partition(".")[2] for known in timm.list_models(f"{model}.*", include_tags=True)]
    if dot and tag not in tags:
        raise UsageError(f"timm has no weights {tag!r} of {model}; its tags: {', '.join(tags) or 'none'}")


def check_pretrained(teacher: Teacher) -> None:
    """Raises UsageError for a timm model that training cannot start from, since nobody published weights of it."""
    if not is_published(teacher.backbone.network):
        raise UsageError(
            f"timm has no pretrained weights of {teacher.name}; give a file as teacher.pretrained or "
            "--teacher-weights, or set teacher.pretrained=false to start from none"
        )


def is_published(model: Any) -> bool:
    """Whether timm knows where to get weights of a model."""
    return any(model.pretrained_cfg.get(source) for source in ("url", "hf_hub_id", "file", "state_dict"))


def _create(settings: TeacherSettings, num_classes: int, download: bool) -> Any:
    check_name(settings.name)
    import timm

    name = settings.name.removeprefix(PREFIX)
    if download and not name.startswith(HUBS):
        return create_published(name, num_classes)
    if name.startswith(HUBS):
        check_hub(name)  # whose client waits for minutes
    try:
        return timm.create_model(name, pretrained=download, num_classes=num_classes)
    except Exception as error:  # the hub client raises many kinds
        if download:
            raise UsageError(
                f"the pretrained weights of {settings.name} could not be downloaded ({told(error)}); "
                "give a local file as teacher.pretrained or --teacher-weights, or set teacher.pretrained=false"
            ) from None
        if name.startswith(HUBS):
            raise UsageError(
                f"{settings.name} could not be read from the Hugging Face Hub ({told(error)}); "
                "a model of timm's own, such as timm:resnet18, needs no network"
            ) from None
        raise
