"""CIFAR ResNets (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Backbone, State, Teacher

CIFAR_RESNETS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56, "resnet110": 110}
CIFAR_IMAGE_SIZE = 32
CIFAR_WIDTHS = (16, 32, 64)
Shortcut = Literal["conv", "pad"]
CLASSIFIERS = ("fc", "classifier", "head")  # what others call `linear`


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
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1 or self.padding:
            half = self.padding // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.padding - half))
        return F.relu(branch + x)


class CifarResNet(Backbone):
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

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 64): the mean of the last map."""
        return self(images)[1][-1].mean((2, 3))  # type: ignore[no-any-return]

    def own_names(self, state: State) -> State:
        """Files have other names for the classifier, and call shortcuts `shortcut` or `downsample`."""
        named = {}
        for key, value in state.items():
            head, dot, rest = key.replace(".shortcut.", ".downsample.").partition(".")
            named[f"{'linear' if head in CLASSIFIERS else head}{dot}{rest}"] = value
        return named


def build_cifar_resnet(settings: TeacherSettings, num_classes: int, state: State | None) -> Teacher:
    """The ResNet that `settings.name` names, with the kind of shortcuts that `state` has."""
    backbone = CifarResNet(CIFAR_RESNETS[settings.name], num_classes, shortcut_of(state) if state else "conv")
    return Teacher(settings.name, backbone, num_classes, settings.image_size or CIFAR_IMAGE_SIZE)


def shortcut_of(state: State) -> Shortcut:
    """Option A has no parameters; a 1x1 convolution shows as `downsample` or `shortcut` keys."""
    return "conv" if any(".downsample." in key or ".shortcut." in key for key in state) else "pad"
