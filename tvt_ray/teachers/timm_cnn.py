"""Any timm CNN as a teacher."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tvt_ray.errors import UsageError
from tvt_ray.teachers.teacher import NUM_STAGES, Backbone, State, Teacher
from tvt_ray.teachers.weights import differences, read_state
from tvt_ray.vision_compat import ensure_torchvision

if TYPE_CHECKING:  # the settings know the table of teachers, which knows this file
    from tvt_ray.teachers.settings import TeacherSettings

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
        final, maps = self.model.forward_intermediates(images, indices=NUM_STAGES, output_fmt="NCHW")
        return self.model.forward_head(final), tuple(maps)


def build_timm(settings: TeacherSettings, num_classes: int, state: State | None) -> Teacher:
    """Without a `state` to come, from `settings.pretrained`, with a new classifier where the classes differ.

    Raises UsageError for an unknown model (names near ones), and where pretrained weights cannot be had or do not fit.
    """
    start = state is None
    model = _create(settings, num_classes, download=start and settings.pretrained is True)
    if not hasattr(model, "forward_intermediates"):
        raise UsageError(f"{settings.name} does not offer its stage maps (forward_intermediates): choose another CNN")
    if start and isinstance(settings.pretrained, Path):
        _load_backbone(model, read_state(settings.pretrained), settings)
    config = model.pretrained_cfg
    size = settings.image_size or config["input_size"][-1]
    return Teacher(settings.name, TimmCnn(model), num_classes, size, config["mean"], config["std"])


def check_name(name: str) -> None:
    """Raises UsageError for a model that timm does not have, naming near ones."""
    ensure_torchvision()
    import timm

    name = name.removeprefix(PREFIX)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        raise UsageError(
            f"timm has no model {name!r}; near: {', '.join(close) or 'none'}; timm.list_models() lists all"
        )


def _create(settings: TeacherSettings, num_classes: int, download: bool) -> Any:
    check_name(settings.name)
    import timm

    try:
        return timm.create_model(settings.name.removeprefix(PREFIX), pretrained=download, num_classes=num_classes)
    except Exception as error:  # the hub client raises many kinds
        if not download:
            raise
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the pretrained weights of {settings.name} could not be downloaded ({reason}); "
            "give a local file as teacher.pretrained or --teacher-weights, or set teacher.pretrained=false"
        ) from None


def _load_backbone(model: Any, state: State, settings: TeacherSettings) -> None:
    """Everything but a classifier of other classes."""
    own = model.state_dict()
    classifier = f"{model.default_cfg['classifier']}."
    for key in [key for key in state if key.startswith(classifier) and state[key].shape != own[key].shape]:
        del state[key]
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.startswith(classifier)]
    if missing or unexpected:
        raise UsageError(f"{settings.pretrained} does not fit {settings.name}: {differences(missing, unexpected)}")
