"""Teachers: CIFAR ResNets (He et al. 2016, https://arxiv.org/abs/1512.03385) and any timm CNN."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveInt, field_validator
from torch import Tensor, nn

from tvt_ray.errors import UsageError
from tvt_ray.models.preprocess import IMAGENET_MEAN, IMAGENET_STD, resize
from tvt_ray.vision_compat import ensure_torchvision

CIFAR_RESNETS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56, "resnet110": 110}
CIFAR_IMAGE_SIZE = 32
CIFAR_WIDTHS = (16, 32, 64)
NUM_STAGES = 3  # stage maps that a teacher gives; of a CNN with more, the last three

Shortcut = Literal["conv", "pad"]


class TeacherSettings(BaseModel):
    """Which CNN teaches, and where its weights come from; without weights it is trained on the dataset first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "resnet20"  # a CIFAR ResNet, or timm:NAME
    weights: Path | None = None  # a state dict that fits the whole teacher, classes included
    pretrained: bool | Path = True  # timm only, where there are no weights: what training starts from
    image_size: PositiveInt | None = None  # pixels; None: the teacher's own (32 for CIFAR ResNets)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CIFAR_RESNETS and not name.startswith("timm:"):
            close = difflib.get_close_matches(name, CIFAR_RESNETS, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"unknown teacher {name!r}{hint}; choices: {', '.join([*CIFAR_RESNETS, 'timm:NAME'])}")
        return name


class Backbone(Protocol):
    """A CNN that gives its stage maps beside its logits."""

    def __call__(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]: ...


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut is `conv` (1x1 convolution and BatchNorm) or `pad` (He's option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, outputs - inputs
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if shortcut == "conv" and (stride > 1 or inputs != outputs)
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1 or self.padding:
            half = self.padding // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.padding - half))
        return F.relu(branch + x)


class CifarResNet(nn.Module):
    """ResNet-6n+2 for 32-pixel images: three stages of n blocks, 16, 32 and 64 channels wide."""

    def __init__(self, depth: int, num_classes: int, shortcut: Shortcut = "conv") -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, CIFAR_WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(CIFAR_WIDTHS[0])
        inputs, stages = CIFAR_WIDTHS[0], []
        for stage, width in enumerate(CIFAR_WIDTHS):
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            widths = [inputs] + [width] * (blocks - 1)
            stages.append(
                nn.Sequential(*[BasicBlock(w, width, s, shortcut) for w, s in zip(widths, strides, strict=True)])
            )
            inputs = width
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 3, H, W) -> logits (B, classes) and the three stage maps, (B, 16, H, W) to (B, 64, H/4, W/4)."""
        x = F.relu(self.bn1(self.conv1(images)))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        return self.linear(x.mean((2, 3))), tuple(maps)


class TimmCnn(nn.Module):
    """A timm model behind the same interface, giving its last three stage maps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 3, H, W) -> logits (B, classes) and three maps (B, C, H', W')."""
        final, maps = self.model.forward_intermediates(images, indices=NUM_STAGES, output_fmt="NCHW")
        return self.model.forward_head(final), tuple(maps)


class Teacher(nn.Module):
    """A CNN that takes ImageNet-normalised images of any size and sees them at its own size and normalisation."""

    def __init__(
        self,
        name: str,
        backbone: nn.Module,
        num_classes: int,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.name, self.backbone, self.num_classes, self.image_size = name, backbone, num_classes, image_size
        # ImageNet-normalised -> 0 to 1 -> the teacher's own, as one scale and shift per channel
        scale = [own / s for own, s in zip(IMAGENET_STD, std, strict=True)]
        shift = [(own - m) / s for own, m, s in zip(IMAGENET_MEAN, mean, std, strict=True)]
        self.register_buffer("scale", torch.tensor(scale)[:, None, None], persistent=False)
        self.register_buffer("shift", torch.tensor(shift)[:, None, None], persistent=False)
        self.renormalizes = tuple(mean) != IMAGENET_MEAN or tuple(std) != IMAGENET_STD

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 3, H, W), ImageNet-normalised -> logits (B, classes), three stage maps (B, C, H', W'), coarsest last."""
        images = resize(images, self.image_size)
        if self.renormalizes:
            images = images * self.scale + self.shift  # type: ignore[operator]
        logits, maps = self.backbone(images)
        return logits, maps

    def freeze(self) -> Teacher:
        """Evaluation mode (BatchNorm statistics fixed), no gradients."""
        return self.eval().requires_grad_(False)


def build_teacher(settings: TeacherSettings, num_classes: int) -> Teacher:
    """An untrained teacher, or with `settings.weights` a trained one, frozen.

    Raises UsageError for an unknown timm model (names near ones), a missing file, or weights that do not fit.
    """
    state = read_state(settings.weights) if settings.weights else None
    if settings.name in CIFAR_RESNETS:
        shortcut = shortcut_of(state) if state else "conv"
        backbone: nn.Module = CifarResNet(CIFAR_RESNETS[settings.name], num_classes, shortcut)
        teacher = Teacher(settings.name, backbone, num_classes, settings.image_size or CIFAR_IMAGE_SIZE)
    else:
        teacher = _build_timm(settings, num_classes, start=state is None)
    if state is None:
        return teacher
    _load(teacher, state, settings)
    return teacher.freeze()


def _build_timm(settings: TeacherSettings, num_classes: int, start: bool) -> Teacher:
    """`start`: begin from `settings.pretrained` weights, with a new classifier where the classes differ."""
    ensure_torchvision()
    import timm

    name = settings.name.removeprefix("timm:")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        raise UsageError(
            f"timm has no model {name!r}; near: {', '.join(close) or 'none'}; timm.list_models() lists all"
        )
    download = start and settings.pretrained is True
    try:
        model: Any = timm.create_model(name, pretrained=download, num_classes=num_classes)
    except Exception as error:  # the hub client raises many kinds
        if not download:
            raise
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the pretrained weights of {settings.name} could not be downloaded ({reason}); "
            "give a local file as teacher.pretrained or --teacher-weights, or set teacher.pretrained=false"
        ) from None
    if not hasattr(model, "forward_intermediates"):
        raise UsageError(
            f"timm model {name!r} does not offer its stage maps (forward_intermediates): choose another CNN"
        )
    if start and isinstance(settings.pretrained, Path):
        _load_backbone(model, read_state(settings.pretrained), settings)
    config = model.pretrained_cfg
    size = settings.image_size or config["input_size"][-1]
    return Teacher(settings.name, TimmCnn(model), num_classes, size, config["mean"], config["std"])


def _load_backbone(model: Any, state: dict[str, Tensor], settings: TeacherSettings) -> None:
    """Everything but a classifier of other classes."""
    own = model.state_dict()
    classifier = f"{model.default_cfg['classifier']}."
    for key in [key for key in state if key.startswith(classifier) and state[key].shape != own[key].shape]:
        del state[key]
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.startswith(classifier)]
    if missing or unexpected:
        raise UsageError(f"{settings.pretrained} does not fit {settings.name}: {_differences(missing, unexpected)}")


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from .pt and .pth without unpickling anything but tensors."""
    if not path.is_file():
        raise UsageError(f"teacher weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path} cannot be read as a state dict: {str(error).splitlines()[0]}") from None
    except Exception as error:  # safetensors raises its own type
        raise UsageError(f"{path} cannot be read as safetensors: {error}") from None
    for wrapper in ("state_dict", "model"):
        loaded = loaded.get(wrapper, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UsageError(f"{path} holds no state dict (names to tensors)")
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def shortcut_of(state: dict[str, Tensor]) -> Shortcut:
    """Option A has no parameters; a 1x1 convolution shows as `downsample` or `shortcut` keys."""
    return "conv" if any(".downsample." in key or ".shortcut." in key for key in state) else "pad"


def _load(teacher: Teacher, state: dict[str, Tensor], settings: TeacherSettings) -> None:
    module = teacher.backbone.model if isinstance(teacher.backbone, TimmCnn) else teacher.backbone
    own = module.state_dict()  # type: ignore[union-attr]
    state = {key.replace(".shortcut.", ".downsample."): value for key, value in state.items()}
    if isinstance(teacher.backbone, CifarResNet):  # files name the classifier in either way
        state = {(f"linear.{k[3:]}" if k.startswith("fc.") else k): v for k, v in state.items()}
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        raise UsageError(
            f"{settings.weights} does not fit teacher {settings.name}: {_differences(missing, unexpected)}"
        )
    for key in own:
        if key in state and own[key].shape != state[key].shape:
            got, wanted = tuple(state[key].shape), tuple(own[key].shape)
            if got[1:] == wanted[1:] and got[0] != wanted[0] and len(own) - list(own).index(key) <= 2:
                raise UsageError(
                    f"{settings.weights}: the teacher knows {got[0]} classes, the dataset has {wanted[0]}; "
                    "give weights that were trained on this dataset, or none to train a teacher now"
                )
            raise UsageError(f"{settings.weights} does not fit teacher {settings.name}: {key} is {got}, not {wanted}")
    module.load_state_dict(state, strict=False)  # type: ignore[union-attr]


def _differences(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    parts = [
        f"{len(keys)} {what} (such as {keys[0]})"
        for keys, what in ((missing, "missing"), (unexpected, "unknown"))
        if keys
    ]
    return ", ".join(parts)
